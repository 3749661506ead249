"""What the tests of deploy/k8s share: rendering, the pods that come of it, and who may talk to whom."""
import os
import subprocess

import yaml

from cluster import REPO, TOOLS, Failure

K8S = REPO / "deploy" / "k8s"
COMPONENT = "app.kubernetes.io/component"
# Pods of other namespaces, which have no policies here.
DNS = {"k8s-app": "kube-dns"}
STRANGER = {"app": "stranger"}


def render(folder, tools):
    """The objects that `kubectl kustomize` makes of a folder."""
    done = subprocess.run([tools / "bin" / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"kubectl kustomize {os.path.relpath(folder, REPO)}: {done.stderr}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def made_by(jobset):
    """The Job and the headless Service that the controller makes of a JobSet with one replicated job."""
    (only,) = jobset["spec"]["replicatedJobs"]
    name, space = jobset["metadata"]["name"], jobset["metadata"]["namespace"]
    return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-{only['name']}-0", "namespace": space},
             "spec": only["template"]["spec"]},
            {"apiVersion": "v1", "kind": "Service",
             "metadata": {"name": jobset["spec"]["network"]["subdomain"], "namespace": space},
             "spec": {"clusterIP": "None", "selector": {"jobset.sigs.k8s.io/jobset-name": name}}}]


def jobs_made(objects):
    """The same objects, with each JobSet replaced by what is made of it."""
    return [made for one in objects for made in (made_by(one) if one["kind"] == "JobSet" else [one])]


def find(objects, kind, name=None):
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    if name is None:
        return found
    if len(found) != 1:
        raise Failure(f"there are {len(found)} objects {kind}/{name}")
    return found[0]


def workloads(objects):
    return [one for one in objects if one["kind"] in ("StatefulSet", "Deployment", "Job")]


def workload(objects, component):
    (only,) = [one for one in workloads(objects) if labels_of(one)[COMPONENT] == component]
    return only


def name_of(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def pod_spec(workload):
    return workload["spec"]["template"]["spec"]


def labels_of(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def flags(container):
    """--name -> values, of `--name=value` and `--name`."""
    found = {}
    for word in container.get("args", []):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found.setdefault(name, []).append(value)
    return found


def flag(container, name):
    """The value of a flag that is given once, else None."""
    values = flags(container).get(name, [])
    return values[0] if len(values) == 1 else None


def port_of(address):
    return int(address.rsplit(":", 1)[1])


# ---- Selectors and NetworkPolicies -------------------------------------------------------------------------------------


def selects(selector, labels):
    """Whether a LabelSelector takes these labels; {} takes all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        inside = labels.get(rule["key"]) in rule.get("values", [])
        if {"In": inside, "NotIn": not inside, "Exists": rule["key"] in labels,
                "DoesNotExist": rule["key"] not in labels}[rule["operator"]] is False:
            return False
    return True


def _rule_allows(rule, peers_key, other, protocol, port):
    ports = rule.get("ports")
    if ports is not None and not any(
            entry.get("protocol", "TCP") == protocol and
            ("port" not in entry or entry["port"] <= port <= entry.get("endPort", entry["port"])) for entry in ports):
        return False
    peers = rule.get(peers_key)
    # A rule without namespaceSelector means this namespace, one with it (it is {} here) all of them.
    return peers is None or any("podSelector" in peer and ("namespaceSelector" in peer or not _is_elsewhere(other)) and
                                selects(peer["podSelector"], other) for peer in peers)


def _is_elsewhere(labels):
    return labels in (DNS, STRANGER)


def _side_allows(objects, direction, own, other, protocol, port):
    if _is_elsewhere(own):
        return True
    policies = [policy["spec"] for policy in find(objects, "NetworkPolicy")
                if direction.capitalize() in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], own)]
    peers_key = "from" if direction == "ingress" else "to"
    return not policies or any(_rule_allows(rule, peers_key, other, protocol, port)
                               for policy in policies for rule in policy.get(direction, []))


def may_talk(objects, source, target, port, protocol="TCP"):
    """Whether the NetworkPolicies let a pod with labels `source` connect to `port` of one with labels `target`."""
    return (_side_allows(objects, "egress", source, target, protocol, port) and
            _side_allows(objects, "ingress", target, source, protocol, port))


# ---- What a Job does with a pod that ended -----------------------------------------------------------------------------


def job_reaction(job, exit_code):
    """Count, Ignore or FailJob, for a container that ended with this code and was not evicted."""
    for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
        on_codes = rule.get("onExitCodes")
        if on_codes is None:
            continue
        inside = exit_code in on_codes["values"]
        if exit_code != 0 and inside == (on_codes["operator"] == "In"):
            return rule["action"]
    return "Count"
