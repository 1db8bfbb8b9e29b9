//! Objects of one kind in a namespace, as JSON: what is asked is exactly what the test writes.

use anyhow::{Context, Result, bail, ensure};
use core_operator::api::{GROUP, VERSION};
use core_operator::commands::crd;
use http::Request;
use kube::{Client, Resource};
use serde_json::{Value, json};
use tests::{ApiServer, ControlPlane, manifests};
use tokio::sync::OnceCell;

/// One of our kinds in a namespace of its own.
pub struct Kind {
    client: Client,
    namespace: String,
    types: Value,
    path: String,
}

/// The shared control plane, with our definitions.
pub async fn server() -> Result<&'static ApiServer> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let server = ControlPlane::shared().await?;
    INSTALLED.get_or_try_init(|| install(server)).await?;
    Ok(server)
}

/// Installs what `core-operator crd` prints.
pub async fn install(server: &ApiServer) -> Result<()> {
    manifests::apply_yaml(&server.client().await?, "default", &crd::crds()?).await
}

impl Kind {
    /// Objects of `K` in a new namespace of the shared control plane.
    pub async fn new<K: Resource<DynamicType = ()>>() -> Result<Self> {
        let server = server().await?;
        let namespace = server.namespace("rules").await?;
        Ok(Self::within::<K>(server.client().await?, &namespace))
    }

    /// Objects of `K` in this namespace.
    pub fn within<K: Resource<DynamicType = ()>>(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            types: json!({"apiVersion": K::api_version(&()), "kind": K::kind(&())}),
            path: format!(
                "/apis/{}/namespaces/{namespace}/{}",
                K::api_version(&()),
                K::plural(&())
            ),
        }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> kube::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(body).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// Creates a whole object; a field that the schema does not know is an error, as with `kubectl create`.
    pub async fn create(&self, object: &Value) -> kube::Result<Value> {
        let path = format!("{}?fieldValidation=Strict", self.path);
        self.send("POST", &path, object).await
    }

    /// Creates an object, whose unknown fields are dropped.
    pub async fn create_leniently(&self, spec: &Value) -> Result<Value> {
        let path = format!("{}?fieldValidation=Ignore", self.path);
        Ok(self.send("POST", &path, &self.object(spec)).await?)
    }

    /// The object as it is now.
    pub async fn get(&self, name: &str) -> Result<Value> {
        let request = Request::get(format!("{}/{name}", self.path)).body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }

    /// Writes a whole object back.
    pub async fn replace(&self, object: &Value) -> kube::Result<Value> {
        let path = format!("{}/{}?fieldValidation=Strict", self.path, name(object));
        self.send("PUT", &path, object).await
    }

    /// Writes an object back by its subresource for the status.
    pub async fn replace_status(&self, object: &Value) -> kube::Result<Value> {
        let path = format!(
            "{}/{}/status?fieldValidation=Strict",
            self.path,
            name(object)
        );
        self.send("PUT", &path, object).await
    }

    fn object(&self, spec: &Value) -> Value {
        let metadata = json!({"generateName": "rule-", "namespace": self.namespace});
        merged(&self.types, json!({"metadata": metadata, "spec": spec}))
    }

    /// Creates an object with this spec.
    pub async fn accepts(&self, spec: Value) -> Result<Value> {
        let created = self.create(&self.object(&spec)).await;
        created.with_context(|| format!("rejected: {spec}"))
    }

    /// Fails unless each spec is refused with these words.
    pub async fn rejects(&self, words: &str, specs: impl IntoIterator<Item = Value>) -> Result<()> {
        for spec in specs {
            let created = self.create(&self.object(&spec)).await;
            refused(created, words).with_context(|| spec.to_string())?;
        }
        Ok(())
    }

    /// Fails unless an object that was created with a spec can get the other one.
    pub async fn accepts_change(&self, from: Value, to: Value) -> Result<()> {
        let mut object = self.accepts(from).await?;
        object["spec"] = to;
        let changed = self.replace(&object).await;
        changed.with_context(|| format!("rejected: {}", object["spec"]))?;
        Ok(())
    }

    /// Fails unless the change from one spec to the other is refused with these words.
    pub async fn rejects_change(&self, words: &str, from: Value, to: Value) -> Result<()> {
        let mut object = self.accepts(from).await?;
        object["spec"] = to;
        refused(self.replace(&object).await, words).with_context(|| object["spec"].to_string())
    }

    /// Gives the object this status.
    pub async fn accepts_status(&self, object: &Value, status: Value) -> Result<Value> {
        let mut object = self.get(name(object)).await?;
        object["status"] = status;
        let written = self.replace_status(&object).await;
        written.with_context(|| format!("rejected: {}", object["status"]))
    }

    /// Fails unless each status is refused with these words.
    pub async fn rejects_status(
        &self,
        object: &Value,
        words: &str,
        statuses: impl IntoIterator<Item = Value>,
    ) -> Result<()> {
        let mut object = self.get(name(object)).await?;
        for status in statuses {
            object["status"] = status;
            let written = self.replace_status(&object).await;
            refused(written, words).with_context(|| object["status"].to_string())?;
        }
        Ok(())
    }

    /// Fails unless spec and status are written by different ways, and neither changes the other.
    pub async fn keeps_spec_and_status_apart(&self, spec: Value, other: Value) -> Result<()> {
        let mut object = self.accepts(spec).await?;
        let (spec, condition) = (
            object["spec"].clone(),
            json!({"type": "Ready", "status": "True"}),
        );
        object["status"] = json!({"conditions": [condition]});
        let mut object = self.replace(&object).await?;
        ensure!(object.get("status").is_none(), "by the object: {object}");

        let generation = object["metadata"]["generation"].clone();
        object["spec"] = other.clone();
        object["status"] = json!({"conditions": [condition]});
        let mut object = self.replace_status(&object).await?;
        ensure!(object["spec"] == spec, "by the status: {object}");
        ensure!(
            object["status"]["conditions"][0]["status"] == "True",
            "{object}"
        );
        ensure!(
            object["metadata"]["generation"] == generation,
            "a new generation"
        );

        object["spec"] = other;
        object["status"] = json!({});
        let object = self.replace(&object).await?;
        ensure!(object["spec"] != spec, "{object}");
        ensure!(
            object["status"]["conditions"][0]["status"] == "True",
            "{object}"
        );
        ensure!(
            object["metadata"]["generation"] != generation,
            "the old generation"
        );
        Ok(())
    }

    /// The columns of `kubectl get`, those of `-o wide` in brackets.
    pub async fn columns(&self) -> Result<Vec<String>> {
        let request = Request::get(&self.path)
            .header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
            .body(Vec::new())?;
        let table: Value = self.client.request(request).await?;
        let columns = table["columnDefinitions"].as_array().context("no table")?;
        let name = |column: &Value| column["name"].as_str().unwrap_or_default().to_owned();
        Ok(columns
            .iter()
            .map(|column| match column["priority"].as_i64() {
                Some(0) => name(column),
                _ => format!("[{}]", name(column)),
            })
            .collect())
    }

    /// Short names and categories.
    pub async fn names(&self) -> Result<Value> {
        let request = Request::get(format!("/apis/{GROUP}/{VERSION}")).body(Vec::new())?;
        let list: Value = self.client.request(request).await?;
        let kinds = list["resources"].as_array().context("no list")?;
        let kind = kinds.iter().find(|kind| {
            self.path
                .ends_with(&format!("/{}", kind["name"].as_str().unwrap_or_default()))
        });
        let kind = kind.context("not served")?;
        Ok(json!([kind["shortNames"], kind["categories"]]))
    }
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Fails unless the API server found the object invalid, with these words.
pub fn refused(result: kube::Result<Value>, words: &str) -> Result<()> {
    match result {
        Ok(object) => bail!("accepted: {}", object["spec"]),
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            ensure!(
                status.message.contains(words),
                "rejected with {:?}",
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error).context("not rejected as invalid"),
    }
}

/// `with` on top of `base`; null removes.
pub fn merged(base: &Value, with: Value) -> Value {
    let mut merged = base.clone();
    if let (Some(merged), Value::Object(with)) = (merged.as_object_mut(), with) {
        for (name, value) in with {
            if value.is_null() {
                merged.remove(&name);
            } else {
                merged.insert(name, value);
            }
        }
    }
    merged
}
