"""Pods of rendered manifests on one machine: `podman play kube` with an engine of its own, in a folder of its own.

What a cluster does besides is done here by hand, as the manifests say: volumes with the group fsGroup, host names and
indexes of a Job's pods, names of Services (as aliases in the network), probes. podman 4.3 takes neither Secrets nor claims
with a group, and publishes every containerPort on the machine: so volumes become folders, and ports are left out.
"""
import base64
import copy
import ipaddress
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import yaml

import kube

CONTAINERS_CONF = """
[containers]
# Raising limits may not be allowed here.
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
# Locks in shared memory would be shared with other engines of this machine.
lock_type = "file"
[network]
network_backend = "netavark"
"""
PROGRAMS = ("podman", "runc", "iptables", "ip")
PACKAGES = ("podman", "runc", "catatonit", "netavark", "aardvark-dns", "iptables", "iproute2")
PATIENCE_S = 120


def wait_until(holds, what, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise kube.Failure(f"waited {patience_s} s until {what}")
        time.sleep(0.1)


NAMESPACES = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


def enter_namespaces():
    """Starts this program again with processes, mounts and a network of its own: they end with it, whatever happens."""
    inside = "SMARTPIPE_NAMESPACES"
    if inside not in os.environ:
        os.environ[inside] = "1"
        os.execvp("unshare", [*NAMESPACES, sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def control_groups():
    root = pathlib.Path("/sys/fs/cgroup")
    parents = [path for pattern in ("libpod_parent", "*/libpod_parent") for path in root.glob(pattern)]
    return {str(path) for parent in parents for path in [parent, *parent.rglob("*/")]}


class Engine:
    """podman with storage, state and networks in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self.network = f"smartpipe-{os.getpid()}"
        self.control_groups = control_groups()
        (folder / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
        self.words = ["podman", "--root", folder / "root", "--runroot", folder / "runroot", "--tmpdir", folder / "tmp",
                      "--network-config-dir", folder / "networks"]
        self.env = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}

    @staticmethod
    def why_not():
        """Why there can be no engine here; None if there can."""
        if os.geteuid() != 0:
            return "only root can run the pods"
        if not all(map(shutil.which, PROGRAMS)) and not pathlib.Path("/run/systemd/system").exists():
            # Installed where no init system would start what comes along.
            apt = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"]
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
                subprocess.run([*apt, *words], capture_output=True, check=False, env=env)
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing:
            return f"not installed: {', '.join(missing)}; apt-get install {' '.join(PACKAGES)}"
        tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
        return f"no namespaces can be had here: {tried.stderr.strip()}" if tried.returncode != 0 else None

    def try_run(self, *words, **more):
        return subprocess.run([*self.words, *words], capture_output=True, text=True, check=False, timeout=300, env=self.env,
                              stdin=subprocess.DEVNULL, **more)

    def run(self, *words, **more):
        done = self.try_run(*words, **more)
        if done.returncode != 0:
            raise kube.Failure(f"podman {' '.join(map(str, words))}: {done.stderr}")
        return done.stdout.strip()

    def import_tree(self, archive, image):
        self.run("import", "--change", "USER 65532:65532", archive, image)

    def inspect(self, container, what):
        return json.loads(self.run("inspect", container, "--format", "{{json " + what + "}}"))

    def logs(self, container):
        done = self.try_run("logs", container)
        return done.stdout + done.stderr

    def exit_code(self, container):
        """None while it runs."""
        state = self.inspect(container, ".State")
        return None if state["Running"] or state["Status"] in ("created", "initialized") else state["ExitCode"]

    def close(self):
        self.try_run("pod", "rm", "--all", "--force", "--time", "0")
        self.try_run("rm", "--all", "--force", "--time", "0")
        self.try_run("network", "rm", "--force", self.network)
        for cgroup in sorted(control_groups() - self.control_groups, reverse=True):
            try:
                os.rmdir(cgroup)  # podman leaves some of them, empty
            except OSError:
                pass
        subprocess.run(["umount", "--recursive", "--quiet", self.folder / "root" / "overlay"], check=False, capture_output=True)

    def left_behind(self):
        """Processes and mounts that still use the folder, networks that are still there."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.folder).encode() in words:
                    found.append(f"process {entry.name}: {words.replace(bytes(1), b' ').decode(errors='replace')[:200]}")
        found += [f"mount {line.split()[1]}" for line in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
                  if str(self.folder) in line]
        return found


class Pod:
    """One pod that runs, or ran."""

    def __init__(self, engine, name, workload):
        (container,) = kube.pod_spec(workload)["containers"]
        self.engine, self.name, self.workload = engine, name, workload
        self.container = f"{name}-{container['name']}"

    def labels(self):
        return kube.labels_of(self.workload)

    def exit_code(self):
        return self.engine.exit_code(self.container)

    def logs(self):
        return self.engine.logs(self.container)

    def pid(self):
        return self.engine.inspect(self.container, ".State")["Pid"]

    def address(self):
        infra = self.engine.inspect(self.container, ".NetworkSettings.Networks") or self.engine.inspect(
            self.engine.run("pod", "inspect", self.name, "--format", "{{.InfraContainerID}}"), ".NetworkSettings.Networks")
        return infra[self.engine.network]["IPAddress"]

    def remove(self):
        self.engine.run("pod", "rm", "--force", "--time", "0", self.name)


class Cluster:
    """Makes the pods of rendered objects."""

    def __init__(self, engine, objects, secrets):
        self.engine, self.objects = engine, objects
        self.secrets = {secret["metadata"]["name"]: {key: base64.b64decode(text) for key, text in secret["data"].items()}
                        for secret in secrets}
        self.pods = []
        engine.run("network", "create", engine.network)

    def claim(self, name):
        return self.engine.folder / "claims" / name

    def _own(self, path, group, mode):
        os.chown(path, 0, group)
        os.chmod(path, mode)

    def _folder_of(self, volume, pod_name, group):
        if "persistentVolumeClaim" in volume:
            folder = self.claim(volume["persistentVolumeClaim"]["claimName"])
            if not folder.exists():
                folder.mkdir(parents=True)
                self._own(folder, group, 0o2775)
            return folder
        folder = self.engine.folder / "pods" / pod_name / volume["name"]
        folder.mkdir(parents=True)
        if "emptyDir" in volume:
            self._own(folder, group, 0o2777)
            return folder
        if "secret" in volume:
            files, mode = self.secrets[volume["secret"]["secretName"]], volume["secret"].get("defaultMode", 0o644)
        else:
            data = kube.find(self.objects, "ConfigMap", volume["configMap"]["name"])["data"]
            files, mode = {key: text.encode() for key, text in data.items()}, volume["configMap"].get("defaultMode", 0o644)
        for name, content in files.items():
            (folder / name).write_bytes(content)
            self._own(folder / name, group, mode)
        return folder

    def _services(self, labels, hostname):
        """The names by which a pod with these labels is found."""
        names = [hostname]
        for service in kube.find(self.objects, "Service"):
            if kube.selects({"matchLabels": service["spec"]["selector"]}, labels):
                name = service["metadata"]["name"]
                names.append(f"{hostname}.{name}" if service["spec"].get("clusterIP") == "None" else name)
        return names

    def start(self, workload, index=0):
        """A pod of a StatefulSet, or of a Job's index."""
        name = hostname = f"{workload['metadata']['name']}-{index}"
        spec = copy.deepcopy(kube.pod_spec(workload))
        (container,) = spec["containers"]
        volumes = list(spec.get("volumes", []))
        if workload["kind"] == "Job":
            name += f"-{len(self.pods)}"  # a pod that replaces another has a name of its own
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            claim_name = claim["metadata"]["name"]
            volumes.append({"name": claim_name, "persistentVolumeClaim": {"claimName": f"{claim_name}-{name}"}})
        folders = {one["name"]: self._folder_of(one, name, spec["securityContext"]["fsGroup"]) for one in volumes}
        spec["volumes"] = []
        for number, mount in enumerate(container.get("volumeMounts", [])):
            path = folders[mount["name"]] / mount.pop("subPath", "")
            mount["name"] = f"mount-{number}"
            spec["volumes"].append({"name": mount["name"], "hostPath": {"path": str(path)}})
        for key in ("startupProbe", "readinessProbe", "livenessProbe", "ports"):
            container.pop(key, None)
        spec["hostname"] = hostname
        labels = kube.labels_of(workload)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        path = self.engine.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(pod), encoding="utf-8")
        aliases = ",".join(f"alias={alias}" for alias in self._services(labels, hostname))
        self.engine.run("play", "kube", "--network", f"{self.engine.network}:{aliases}", path)
        self.pods.append(Pod(self.engine, name, workload))
        return self.pods[-1]


# ---- What is seen of a pod ---------------------------------------------------------------------------------------------


def _sockets(pid):
    """(local address, local port, other address, other port, listens) of a process's network."""
    for name in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[3] not in ("01", "0A"):  # established, listening
                continue
            ends = []
            for word in words[1:3]:
                address, port = word.split(":")
                groups = [bytes.fromhex(address[at:at + 8])[::-1] for at in range(0, len(address), 8)]
                parsed = ipaddress.ip_address(b"".join(groups))
                ends += [str(getattr(parsed, "ipv4_mapped", None) or parsed), int(port, 16)]
            yield (*ends, words[3] == "0A")


def connections(pods):
    """(who connected, to whom, port) between pods that run now. Which end listens may be over: then both ways."""
    running = {pod.address(): pod for pod in pods if pod.exit_code() is None}
    found = set()
    for address, pod in running.items():
        sockets = list(_sockets(pod.pid()))
        listening = {port for _, port, _, _, listens in sockets if listens}
        for local, port, other, other_port, listens in sockets:
            if listens or local != address or other not in running or other == address:
                continue
            theirs = {number for _, number, _, _, opened in _sockets(running[other].pid()) if opened}
            if port in listening or other_port not in theirs:
                found.add((running[other], pod, port))
            if other_port in theirs or port not in listening:
                found.add((pod, running[other], other_port))
    return found


def confinement(pod):
    """What is wrong with what the kernel enforces on a pod's process, against its manifest."""
    spec = kube.pod_spec(pod.workload)
    (container,) = spec["containers"]
    lines = pathlib.Path(f"/proc/{pod.pid()}/status").read_text(encoding="ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    wanted = {"Uid": "\t".join([str(spec["securityContext"]["runAsUser"])] * 4), "CapEff": "0" * 16, "CapBnd": "0" * 16,
              "NoNewPrivs": "1", "Seccomp": "2"}
    wrong = [f"{key} is {status[key].strip()}" for key, value in wanted.items() if status[key].strip() != value]
    host = pod.engine.inspect(pod.container, ".HostConfig")
    limits = container["resources"]["limits"]
    if not host["ReadonlyRootfs"]:
        wrong.append("its root can be written")
    units = {"Mi": 2**20, "Gi": 2**30}
    if host["Memory"] != int(limits["memory"][:-2]) * units[limits["memory"][-2:]]:
        wrong.append(f"memory limit {host['Memory']}")
    if host["NanoCpus"] != int(float(limits["cpu"]) * 1e9):
        wrong.append(f"cpu limit {host['NanoCpus']}")
    return [f"{pod.name}: {one}" for one in wrong]
