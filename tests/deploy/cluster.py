"""The cluster of deploy/compose as tests see it: from outside, with a person's tools."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
TOOLS = REPO / ".deps" / "tools"
COMPOSE = REPO / "deploy" / "compose" / "compose.yaml"
CONFIG = REPO / "tests" / "deploy" / "short.toml"
ENGINE = REPO / "deploy" / "docker" / "engine"
SKIPPED = 77
# Neither root nor the images' user: the keys are his, the volumes are the images'.
USER = 1234


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


def run(*command, ok=True, timeout=120, **more):
    """Exit code and output of a command; with ok, another exit code than 0 is a failure."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, check=False, **more)
    if ok and done.returncode != 0:
        raise Failure(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.returncode, done.stdout


def wait_until(holds, what, timeout_s=120, period_s=0.1):
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failure(f"waited {timeout_s} s until {what}")
        time.sleep(period_s)


def host_digest(build, folder, stages=2, config=CONFIG):
    """weights_sha256 of the same run by `smartpipe train` on this machine."""
    run(build / "bin" / "smartpipe", "train", config, "--run-dir", folder, "--set", f"pipeline.stages={stages}", timeout=300)
    return json.loads((pathlib.Path(folder) / "summary.json").read_text(encoding="utf-8"))["weights_sha256"]


class Cluster:
    """One run of the cluster, `docker compose up` attached as a person has it; `folder` is for its files."""

    def __init__(self, build, folder, stages=2, config=CONFIG):
        self.build, self.folder, self.stages = build, pathlib.Path(folder), stages
        self.tls = self.folder / "tls"
        if not self.tls.exists():
            run(build / "bin" / "smartpipe", "certs", self.tls)
            for file in self.tls.iterdir():
                os.chown(file, USER, USER)
        self.environment = {**os.environ, "TLS_DIR": str(self.tls), "CONFIG": str(config), "STAGES": str(stages),
                            "SMARTPIPE_USER": f"{USER}:{USER}", "RPC_PORT": "50051"}
        self.log_path = self.folder / "up.log"
        self.up_process = None

    def compose(self, *words, **more):
        return run("docker", "compose", "-f", COMPOSE, "--profile", "cpu", *words, env=self.environment, **more)[1]

    def up(self):
        log = open(self.log_path, "w", encoding="utf-8")
        self.up_process = subprocess.Popen(
            ["docker", "compose", "-f", str(COMPOSE), "--profile", "cpu", "up", "--no-color"], stdout=log, stderr=log,
            env=self.environment, start_new_session=True)

    def log(self):
        return self.log_path.read_text(encoding="utf-8")

    def wait_end(self, timeout_s=180):
        """Exit code of `up`, which must end by itself."""
        try:
            return self.up_process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"the cluster did not end within {timeout_s} s:\n{self.log()[-6000:]}") from error

    def down(self):
        if self.up_process is not None and self.up_process.poll() is None:
            os.killpg(self.up_process.pid, signal.SIGKILL)
            self.up_process.wait()
        self.compose("down", "--volumes", "--remove-orphans", timeout=120)

    def containers(self, service):
        """Ids of its containers, running or not, by number."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def logs(self, service):
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    @staticmethod
    def log_of(container):
        return run("docker", "logs", container)[1]

    def kill(self, container):
        """SIGKILL from outside to its main process, which the engine takes for a crash (as it does not take `docker kill`)."""
        pid = int(inspect(container, "{{.State.Pid}}"))
        check(pid > 0, f"{container} does not run")
        os.kill(pid, signal.SIGKILL)

    def grpcurl(self, method, role="operator", data=None, ok=True):
        """A call from outside the containers."""
        code, out = run(TOOLS / "bin" / "grpcurl", "-max-time", 10, "-cacert", self.tls / "ca.crt", "-cert", self.tls / f"{role}.crt",
                        "-key", self.tls / f"{role}.key", *(["-d", json.dumps(data)] if data else []), "127.0.0.1:50051",
                        f"smartpipe.v1.FreezeService/{method}", ok=ok)
        return json.loads(out) if ok else (code, out)

    def get_run(self):
        """Empty where nobody answers."""
        code, out = self.grpcurl("GetRun", role="viewer", ok=False)
        return json.loads(out)["run"] if code == 0 else {}

    def step(self):
        """Steps done so far; -1 where nobody answers."""
        answer = self.get_run()
        return int(answer.get("step", 0)) if answer else -1

    def wait_step(self, step, timeout_s=120):
        wait_until(lambda: self.step() >= step or self.up_process.poll() is not None, f"step {step} is done", timeout_s)
        check(self.up_process.poll() is None, f"the cluster has ended:\n{self.log()[-4000:]}")

    def digest(self):
        """weights_sha256 as the freeze service's log tells it."""
        found = set(re.findall(r"weights_sha256 ([0-9a-f]{64})", self.logs("freeze_service")))
        check(len(found) == 1, f"the freeze service's log names {len(found)} digests of weights")
        return found.pop()


def inspect(container, template):
    return run("docker", "inspect", "--format", template, container)[1].strip()


def traces():
    """What an engine could leave behind on this machine."""
    mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    processes = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if pathlib.Path(words.decode(errors="replace")).name in ("dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"):
            processes.append(f"process {folder.name}")
    return {*(f"mount {mount}" for mount in mounts if "smartpipe-engine" in mount),
            *(f"interface {link.name}" for link in pathlib.Path("/sys/class/net").glob("*")),
            *(f"folder {path}" for path in pathlib.Path("/var/tmp").glob("smartpipe-engine.*")),
            *(f"cgroup {path}" for path in pathlib.Path("/sys/fs/cgroup").glob("**/smartpipe-engine.*")),
            *processes}
