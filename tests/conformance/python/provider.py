"""A provider that knows the proto files and no line of Rust: raw files over HTTP into memory. Run with the port to listen on."""

import hashlib
import re
import sys
import threading
import time
import urllib.request
import uuid
from concurrent import futures
from types import SimpleNamespace

import grpc
from google.rpc import error_details_pb2, status_pb2

from clusterstack.provider.v1alpha1 import identity_pb2, identity_pb2_grpc
from clusterstack.provider.v1alpha1 import node_image_pb2 as pb
from clusterstack.provider.v1alpha1 import node_image_pb2_grpc

INSTANCE, C, S = uuid.uuid4().hex, grpc.StatusCode, pb.ImageObservation
CODES = {
    C.INVALID_ARGUMENT: ("INVALID_FIELD", "UNSUPPORTED_ARTIFACT", "NODE_IMAGES_INVALID"),
    C.NOT_FOUND: ("IMAGE_NOT_FOUND",),
    C.ALREADY_EXISTS: ("IMAGE_SPEC_CONFLICT",),
    C.UNAUTHENTICATED: ("BACKEND_AUTH_FAILED",),
    C.FAILED_PRECONDITION: ("FOREIGN_OBJECT",),
    C.UNAVAILABLE: ("SOURCE_UNAVAILABLE",),
    C.DATA_LOSS: ("DIGEST_MISMATCH", "SIZE_MISMATCH"),
    C.DEADLINE_EXCEEDED: ("DEADLINE_PASSED",),
}
CODES = {reason: code for code, reasons in CODES.items() for reason in reasons}


class Refused(Exception):
    """A status of the contract: reason, text, and the path of the field that is wrong."""


def status(reason, text, field=None):
    """Code, words and details, as they stand in trailers and in observations."""
    found = status_pb2.Status(code=CODES[reason].value[0], message=text)
    found.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="provider.clusterstack.x-k8s.io"))
    if field:
        violation = {"field": field, "description": "see the contract"}
        found.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return found


def answers(method):
    """Turns what is raised into a status of the contract."""

    def call(self, request, context):
        try:
            return method(self, request)
        except Refused as why:
            found = status(*why.args)
            context.set_trailing_metadata((("grpc-status-details-bin", found.SerializeToString()),))
            context.abort(CODES[why.args[0]], why.args[1])

    return call


def need(holds, field):
    if not holds:
        raise Refused("INVALID_FIELD", f'field "{field}" is missing or malformed', field)


def check_caller(request):
    need(request.HasField("caller"), "caller")
    need(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", request.caller.installation_id), "caller.installation_id")


def check_target(request, placed=True):
    check_caller(request)
    need(request.HasField("target"), "target")
    need(bool(request.target.target_id) == placed and len(request.target.target_id) <= 128, "target.target_id")
    need("token" in request.target.secrets, "target.secrets.token")
    if not request.target.secrets["token"].startswith(b"good"):
        raise Refused("BACKEND_AUTH_FAILED", "the backend refuses the token")


def check_image(request, with_digest=False):
    check_target(request)
    need(request.HasField("image_key"), "image_key")
    need(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", request.image_key.key), "image_key.key")
    need(request.image_key.spec_digest or not with_digest, "image_key.spec_digest")


def check_spec(request):
    need(request.HasField("spec"), "spec")
    spec, artifact = request.spec, request.spec.artifact
    need(0 < len(spec.display_name) <= 244, "spec.display_name")
    need(spec.HasField("artifact"), "spec.artifact")
    need(artifact.WhichOneof("source"), "spec.artifact.source")
    if artifact.HasField("oci"):
        need(artifact.digest, "spec.artifact.digest")
        raise Refused("UNSUPPORTED_ARTIFACT", "only files behind HTTP are supported")
    need(0 < len(artifact.http.urls) <= 4, "spec.artifact.http.urls")
    need(re.fullmatch(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})?", artifact.digest), "spec.artifact.digest")
    need(artifact.compression in pb.Compression.values() and artifact.compression, "spec.artifact.compression")
    need(spec.disk_format, "spec.disk_format")
    if spec.disk_format != identity_pb2.DISK_FORMAT_RAW or artifact.compression != pb.COMPRESSION_NONE:
        raise Refused("UNSUPPORTED_ARTIFACT", "only raw and uncompressed images are supported")
    need(request.policy.verification_level in (0, 1, 2), "policy.verification_level")
    need(request.policy.adopt in (0, pb.ADOPT_POLICY_NEVER), "policy.adopt")


class Provider(identity_pb2_grpc.IdentityServiceServicer, node_image_pb2_grpc.NodeImageServiceServicer):
    """Both services over one table of images by place, installation and key."""

    lock, images = threading.Lock(), {}

    @answers
    def GetProviderInfo(self, request):
        check_caller(request)
        return identity_pb2.GetProviderInfoResponse(
            provider_name="python.clusterstack.example",
            provider_version="0.1.0",
            instance_id=INSTANCE,
            contract_versions=["clusterstack.provider.v1alpha1"],
            capabilities=["CAPABILITY_ADVERTISED"],
            artifact_kinds=["ARTIFACT_KIND_HTTP"],
            disk_formats=["DISK_FORMAT_RAW"],
            config_schema_json='{"type": "object", "additionalProperties": false}',
            secret_keys=[{"name": "token", "required": True, "description": "begins with good"}],
        )

    @answers
    def ValidateTarget(self, request):
        check_target(request, placed=False)
        if request.HasField("spec"):
            check_spec(pb.EnsureImageRequest(spec=request.spec))
        return pb.ValidateTargetResponse(target_identity="memory")

    @answers
    def ResolveImages(self, request):
        check_target(request, placed=False)
        need(request.HasField("release"), "release")
        for name in ("provider", "stack_name", "kubernetes_version"):
            need(getattr(request.release, name), "release." + name)
        if request.node_images:
            raise Refused("NODE_IMAGES_INVALID", "this provider has no file format", "node_images")
        return pb.ResolveImagesResponse()

    def find(self, request):
        """The image of a request, and the name under which it is kept."""
        name = (request.target.target_id, request.caller.installation_id, request.image_key.key)
        image = self.images.get(name)
        if image and request.image_key.spec_digest not in ("", image.wanted.image_key.spec_digest):
            raise Refused("IMAGE_SPEC_CONFLICT", "the key holds another spec")
        return name, image

    @answers
    def EnsureImage(self, request):
        check_image(request, with_digest=True)
        check_spec(request)
        with self.lock:
            name, image = self.find(request)
            if image is None:
                seen = S(image_key=request.image_key, state=S.STATE_PENDING)
                image = self.images[name] = SimpleNamespace(stop=threading.Event(), not_before=0.0, seen=seen)
                self.start(image, request)
            raised = image.seen.state == S.STATE_FAILED and request.policy.attempt_floor > image.seen.attempt
            if raised or 0 < image.not_before < time.time():
                self.start(image, request)
            if image.seen.state == S.STATE_ACTIVE and request.publish:
                self.publish(name, image)
            return pb.EnsureImageResponse(observation=image.seen)

    def start(self, image, request):
        """Detaches the work from the call: a gRPC call may end at any time."""
        image.wanted, image.not_before, policy = request, 0.0, request.policy
        image.seen.attempt = max(image.seen.attempt + 1, policy.attempt_floor)
        if policy.HasField("deadline") and policy.deadline.ToSeconds() < time.time():
            image.seen.state = S.STATE_FAILED
            image.seen.error.CopyFrom(status("DEADLINE_PASSED", "the deadline has passed"))
        else:
            image.seen.state = S.STATE_PENDING
            threading.Thread(target=self.work, args=(image,), daemon=True).start()

    def publish(self, name, image):
        """This image and no other carries the name; what is in the way belongs to another installation or goes back."""
        label = image.wanted.spec.display_name
        there = [(n, i) for n, i in self.images.items() if n[0] == name[0] and i.seen.published]
        rivals = [(n, i) for n, i in there if i.wanted.spec.display_name == label and i is not image]
        if any(other[1] != name[1] for other, _ in rivals):
            image.seen.error.CopyFrom(status("FOREIGN_OBJECT", "somebody else's image carries the name"))
            return
        image.seen.ClearField("error")
        for _, other in [*rivals, (name, image)]:
            other.seen.published = other is image

    def work(self, image):
        artifact, seen = image.wanted.spec.artifact, image.seen
        seen.state, seen.provider_image_id = S.STATE_TRANSFERRING, uuid.uuid4().hex
        digest, size = hashlib.new((artifact.digest or "sha256:").split(":")[0]), 0
        try:
            with urllib.request.urlopen(artifact.http.urls[0], timeout=300) as source:
                while piece := source.read1(65536):
                    if image.stop.is_set():
                        return
                    digest.update(piece)
                    size += len(piece)
                    seen.progress.bytes_done = size
                if size != int(source.headers["content-length"]):
                    raise OSError("the body was cut short")
        except OSError:
            with self.lock:
                seen.error.CopyFrom(status("SOURCE_UNAVAILABLE", "the source cannot be read"))
                seen.state, image.not_before = S.STATE_PENDING, time.time() + 0.5
            return
        found = f"{digest.name}:{digest.hexdigest()}"
        wrong = "SIZE_MISMATCH" if artifact.size_bytes not in (0, size) else ""
        wrong = "DIGEST_MISMATCH" if artifact.digest not in ("", found) else wrong
        level = pb.VERIFICATION_LEVEL_METADATA if artifact.digest else pb.VERIFICATION_LEVEL_PRESENCE
        with self.lock:
            seen.ClearField("progress")
            seen.ClearField("error")
            seen.verification.CopyFrom(pb.Verification(level=level, observed_digest=found, observed_size_bytes=size))
            seen.verification.verify_time.GetCurrentTime()
            if wrong:
                seen.error.CopyFrom(status(wrong, "the bytes are not those that were announced"))
            seen.state = S.STATE_FAILED if wrong else S.STATE_ACTIVE

    @answers
    def GetImage(self, request):
        check_image(request)
        with self.lock:
            request.image_key.ClearField("spec_digest")
            _, image = self.find(request)
            if image is None:
                raise Refused("IMAGE_NOT_FOUND", "there is no such image")
            return pb.GetImageResponse(observation=image.seen)

    @answers
    def DeleteImage(self, request):
        check_image(request)
        with self.lock:
            name, image = self.find(request)
            if image:
                self.images.pop(name).stop.set()
        return pb.DeleteImageResponse(observation=S(image_key=request.image_key, state=S.STATE_ABSENT))


if __name__ == "__main__":
    server, provider = grpc.server(futures.ThreadPoolExecutor(32)), Provider()
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(provider, server)
    node_image_pb2_grpc.add_NodeImageServiceServicer_to_server(provider, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
