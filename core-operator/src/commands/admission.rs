//! The admission policy: a Cluster whose Kubernetes version is not that of its release gets a warning.
//!
//! Evaluated by the API server itself, for each `ClusterStackRelease` in the Cluster's namespace. It only warns, and only whoever sets or changes the topology:
//! never a Cluster of a foreign class, never on deletion, and when it cannot be evaluated nothing happens.

/// Policy and binding, as YAML documents.
pub const POLICY: &str = r#"---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: cluster-version.clusterstack.x-k8s.io
spec:
  failurePolicy: Ignore
  paramKind:
    apiVersion: clusterstack.x-k8s.io/v1alpha1
    kind: ClusterStackRelease
  matchConstraints:
    resourceRules:
    - apiGroups: [cluster.x-k8s.io]
      apiVersions: [v1beta1, v1beta2]
      operations: [CREATE, UPDATE]
      resources: [clusters]
  matchConditions:
  - name: topology-is-set-or-changed
    expression: >-
      has(object.spec) && has(object.spec.topology) && (oldObject == null || !has(oldObject.spec)
      || !has(oldObject.spec.topology) || object.spec.topology != oldObject.spec.topology)
  - name: not-being-deleted
    expression: "!has(object.metadata.deletionTimestamp)"
  variables:
  - name: topology
    expression: object.spec.topology
  - name: class
    expression: >-
      has(variables.topology.classRef) ? variables.topology.classRef.name :
      has(variables.topology.class) ? variables.topology.class : ""
  - name: classNamespace
    expression: >-
      has(variables.topology.classRef) && has(variables.topology.classRef.namespace) ? variables.topology.classRef.namespace :
      has(variables.topology.classNamespace) ? variables.topology.classNamespace : ""
  - name: isClassOfRelease
    expression: >-
      variables.class.matches("^[a-z0-9-]+-v[0-9]+(-[a-z0-9]+[.][a-z0-9]+)?$")
      && variables.class.replace(".", "-") == params.metadata.name
      && (variables.classNamespace == "" || variables.classNamespace == object.metadata.namespace)
  - name: version
    expression: 'has(variables.topology.version) ? variables.topology.version : ""'
  - name: releaseVersion
    expression: >-
      has(params.status) && has(params.status.kubernetesVersion) && params.status.kubernetesVersion != null
      ? params.status.kubernetesVersion : ""
  validations:
  - expression: >-
      !variables.isClassOfRelease || variables.version == "" || variables.releaseVersion == ""
      || (variables.version.startsWith("v") ? variables.version.substring(1) : variables.version)
      == (variables.releaseVersion.startsWith("v") ? variables.releaseVersion.substring(1) : variables.releaseVersion)
    messageExpression: >-
      "spec.topology.version is \"" + variables.version + "\", but release \"" + params.metadata.name
      + "\", which the ClusterClass comes from, is made for Kubernetes \"" + variables.releaseVersion + "\""
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: cluster-version.clusterstack.x-k8s.io
spec:
  policyName: cluster-version.clusterstack.x-k8s.io
  validationActions: [Warn]
  # All of the Cluster's namespace.
  paramRef:
    selector: {}
    parameterNotFoundAction: Allow
"#;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    };
    use kube::{CustomResourceExt, Resource};

    use super::*;
    use crate::api::ClusterStackRelease;

    #[test]
    fn policy_reads_releases_and_is_bound() {
        let [policy, binding] =
            <[&str; 2]>::try_from(POLICY.split("---\n").skip(1).collect::<Vec<_>>()).unwrap();
        let policy: ValidatingAdmissionPolicy = serde_saphyr::from_str(policy).unwrap();
        let binding: ValidatingAdmissionPolicyBinding = serde_saphyr::from_str(binding).unwrap();
        let parameter = policy.spec.unwrap().param_kind.unwrap();
        assert_eq!(
            parameter.api_version.unwrap(),
            ClusterStackRelease::api_version(&())
        );
        assert_eq!(
            parameter.kind.unwrap(),
            ClusterStackRelease::crd().spec.names.kind
        );
        assert_eq!(binding.spec.unwrap().policy_name, policy.metadata.name);
    }
}
