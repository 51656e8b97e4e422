"""Policies of a namespace that treat hotpool's pods as OpenShift's restricted-v2 does.

OpenShift assigns users and groups from a range of the namespace, and refuses pods that name others.
"""

from typing import Any, Final

API: Final = "security.openshift.io/v1"
"""An API by which charts recognize OpenShift."""
FIRST, LAST = 1_000_680_000, 1_000_689_999
"""Range of users and groups."""
_VOLUMES: Final = (
    "['configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret']"
)
_IN_RANGE: Final = f".filter(u, u.hasValue()).all(u, u.value() >= {FIRST} && u.value() <= {LAST})"
_RULES: Final = {
    "runAsUser is not in the namespace's range": f"""
        ([object.spec.?securityContext.?runAsUser]
          + variables.containers.map(c, c.?securityContext.?runAsUser)){_IN_RANGE}""",
    "fsGroup is not in the namespace's range": f"[object.spec.?securityContext.?fsGroup]{_IN_RANGE}",
    "runAsNonRoot must be true": "object.spec.?securityContext.?runAsNonRoot.orValue(false) == true",
    "seccompProfile must be RuntimeDefault":
        "object.spec.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault'",
    "capabilities must drop ALL":
        "variables.containers.all(c, 'ALL' in c.?securityContext.?capabilities.?drop.orValue([]))",
    "allowPrivilegeEscalation must be false":
        "variables.containers.all(c, !c.?securityContext.?allowPrivilegeEscalation.orValue(true))",
    "volumes of this kind are not allowed":
        f"object.spec.?volumes.orValue([]).all(v, v.all(k, k == 'name' || k in {_VOLUMES}))",
    "host namespaces are not allowed":
        "!object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false)",
}  # fmt: skip
"""Message → expression."""
_ASSIGNMENT: Final = f"""
    Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{
      runAsUser: {FIRST}, fsGroup: {FIRST}}}}}}}"""


def policies(namespace: str) -> list[dict[str, Any]]:
    """Return the policies and their bindings, for pods of hotpool in the namespace."""
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    matched = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "objectSelector": {"matchLabels": {"app.kubernetes.io/name": "hotpool"}},
        "resourceRules": [pods],
    }
    containers = "object.spec.containers + object.spec.?initContainers.orValue([])"
    checked = {
        "matchConstraints": matched,
        "variables": [{"name": "containers", "expression": containers}],
        "validations": [{"expression": rule, "message": message} for message, rule in _RULES.items()],
    }
    users = "object.spec.?securityContext.?runAsUser"
    assigned = {
        "matchConstraints": matched,
        "matchConditions": [{"name": "names-no-user", "expression": f"!{users}.hasValue()"}],
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _ASSIGNMENT}}],
    }
    name = f"restricted-v2-{namespace}"
    specs = {
        "ValidatingAdmissionPolicy": checked,
        "MutatingAdmissionPolicy": assigned,
        "ValidatingAdmissionPolicyBinding": {"policyName": name, "validationActions": ["Deny"]},
        "MutatingAdmissionPolicyBinding": {"policyName": name},
    }
    version = "admissionregistration.k8s.io/v1"
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec} for kind, spec in specs.items()
    ]
