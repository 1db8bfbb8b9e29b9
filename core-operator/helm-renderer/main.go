// Helm's own engine as a process that answers requests.
//
// The core starts this program once and asks it many times: starting Helm takes forty times as long as a small chart.
// Requests and answers go over stdin and stdout, each a length (4 bytes, big-endian) followed by JSON. One request is
// handled at a time; a panic answers that request only. At the end of stdin the program ends.
//
// It must never use the network, a cluster, a repository, a plug-in or the environment: the same request gives the same
// answer everywhere (functions such as genCA aside, which are reported).
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime/debug"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
)

const (
	// The largest request or answer; the core refuses larger ones too.
	maxFrame = 128 << 20
	// Go's own limit (1 GB) is beyond the memory that the core allows; templates that call themselves reach it.
	maxStack = 128 << 20
	// Garbage is collected when the heap is three times what lives, Go's default being two: a class chart then takes
	// 1.7 ms in place of 2.3 and the process 4 MiB more. A higher value gains nothing more.
	gcPercent = 200
)

type request struct {
	// Echoed in the answer.
	ID   uint64          `json:"id"`
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

type answer struct {
	ID     uint64 `json:"id"`
	Error  string `json:"error,omitempty"`
	Result any    `json:"result,omitempty"`
}

func main() {
	memory := flag.Int64("memory-limit", 0, "bytes of memory at which garbage collection becomes eager (0: no limit)")
	size := flag.Int64("chart-limit", archive.MaxDecompressedChartSize, "bytes that a chart may have when unpacked")
	flag.Parse()
	if *memory > 0 {
		debug.SetMemoryLimit(*memory)
	}
	debug.SetMaxStack(maxStack)
	debug.SetGCPercent(gcPercent)
	archive.MaxDecompressedChartSize = *size

	// Helm logs and some of its parts print: nothing may come between the answers.
	out := os.Stdout
	os.Stdout = os.Stderr
	log.SetOutput(io.Discard)
	slog.SetDefault(slog.New(slog.DiscardHandler))

	if err := serve(os.Stdin, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers requests until the input ends.
func serve(in io.Reader, out io.Writer) error {
	reader := bufio.NewReaderSize(in, 64<<10)
	for {
		frame, err := readFrame(reader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := writeFrame(out, handle(frame)); err != nil {
			return fmt.Errorf("writing an answer: %w", err)
		}
	}
}

func readFrame(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("request of %d bytes is larger than %d", size, maxFrame)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, fmt.Errorf("request is cut: %w", err)
	}
	return frame, nil
}

// writeFrame writes length and content at once: one system call for small answers.
func writeFrame(out io.Writer, value answer) error {
	content, err := json.Marshal(value)
	if err != nil {
		content, err = json.Marshal(answer{ID: value.ID, Error: "answer is not valid JSON: " + err.Error()})
		if err != nil {
			return err
		}
	}
	if len(content) > maxFrame {
		content, err = json.Marshal(answer{ID: value.ID, Error: fmt.Sprintf("rendered objects have %d bytes, more than the limit of %d", len(content), maxFrame)})
		if err != nil {
			return err
		}
	}
	frame := make([]byte, 4, 4+len(content))
	binary.BigEndian.PutUint32(frame, uint32(len(content)))
	_, err = out.Write(append(frame, content...))
	return err
}

// handle answers one request; a panic in Helm or in a template function is an error of this request only.
func handle(frame []byte) (result answer) {
	var asked request
	defer func() {
		if reason := recover(); reason != nil {
			result = answer{ID: asked.ID, Error: fmt.Sprintf("renderer panicked: %v", reason)}
		}
	}()
	if err := json.Unmarshal(frame, &asked); err != nil {
		return answer{Error: "request is not valid JSON: " + err.Error()}
	}
	value, err := dispatch(asked.Kind, asked.Body)
	if err != nil {
		return answer{ID: asked.ID, Error: err.Error()}
	}
	return answer{ID: asked.ID, Result: value}
}

func dispatch(kind string, body []byte) (any, error) {
	switch kind {
	case "chart":
		return call(body, renderChart)
	case "template":
		return call(body, renderTemplate)
	case "values":
		return call(body, readValues)
	case "resolve":
		return call(body, resolve)
	case "inspect":
		return call(body, inspect)
	default:
		return nil, fmt.Errorf("unknown kind of request %q", kind)
	}
}

func call[Request, Result any](body []byte, run func(Request) (Result, error)) (any, error) {
	var value Request
	if err := json.Unmarshal(body, &value); err != nil {
		return nil, fmt.Errorf("request is not valid: %w", err)
	}
	return run(value)
}
