"""A private, real Slurm on this machine: munged, slurmctld and slurmd daemons, each "node" with eight pretended GPUs."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genrun.runner.store.files import locked

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")
PATH = f"{os.environ['PATH']}:/usr/sbin"
NODES, GPUS, CPUS = 4, 8, 64
PORTS = range(61000, 65000)

CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that was put back into the queue may start again only once its credential has run out: 5 s is the least.
AuthInfo=socket={lab}/munge.sock,cred_expire=5
CommunicationParameters=NoAddrCache
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool/%n
SlurmctldPidFile={lab}/slurmctld.pid
SlurmdPidFile={lab}/%n.pid
SlurmctldLogFile={lab}/slurmctld.log
SlurmdLogFile={lab}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
# Slurm 23.11 to 24.11.5 may take nodes for lost that answer, when it pings them each second: a third of this.
SlurmdTimeout=9
SlurmctldTimeout=5
KillWait=3
# Longer than any test, so that slurmctld forgets what it is made to forget and nothing else.
MinJobAge=3600
InactiveLimit=0
Waittime=0
MessageTimeout=10
BatchStartTimeout=5
TCPTimeout=2
CompleteWait=0
JobRequeue=1
MaxArraySize=1001
MaxJobCount=10000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,requeue_delay=0
EnforcePartLimits=ALL
JobCompType=jobcomp/none
{accounting}
{nodes}
PartitionName=gpu Nodes=node[1-{count}] Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=OFF
PartitionName=low Nodes=node[1-{count}] MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=warned Nodes=node[1-{count}] MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=node[1-{count}] MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=node[1-{count}] MaxTime=1 DefaultTime=1 PriorityTier=1 PreemptMode=OFF
"""

DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={lab}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
PidFile={lab}/slurmdbd.pid
LogFile={lab}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mysql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""

LOG_SIZE = "8M"

GRANT = """\
create database slurm_acct_db;
create user slurm@'127.0.0.1' identified by 'slurm'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';
create user slurm@localhost identified by 'slurm'; grant all on slurm_acct_db.* to slurm@localhost
"""


class Cluster:
    """A running cluster. Daemons may be stopped, killed and started again by name: slurmctld, node1 .. node4."""

    def __init__(self, lab: Path, *, accounting: bool = False) -> None:
        self.lab = lab
        self.accounting = accounting
        self.nodes = [f"node{number + 1}" for number in range(NODES)]
        self.conf = lab / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._ports = take_ports(NODES + 3)

    @property
    def environ(self) -> dict[str, str]:
        """What a user of this cluster has in the environment."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.lab / 'bin'}:{PATH}"}

    @property
    def asked(self) -> Path:
        """Where each call of sacct by a user of this cluster is noted."""
        return self.lab / "asked"

    def up(self) -> None:
        """Start everything, and wait until the nodes are idle."""
        for folder in ("state", "spool", "bin"):
            (self.lab / folder).mkdir(exist_ok=True)
        noting = self.lab / "bin" / "sacct"
        noting.write_text(f'#!/bin/sh\necho "$@" >>{self.asked}\nexec {shutil.which("sacct", path=PATH)} "$@"\n')
        noting.chmod(0o755)
        self._configure()
        key = self.lab / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        socket_ = self.lab / "munge.sock"
        names = [("key-file", key), ("socket", socket_), ("pid-file", self.lab / "munge.pid")]
        names += [("log-file", self.lab / "munge.log"), ("seed-file", self.lab / "munge.seed")]
        options = [f"--{name}={path}" for name, path in names]
        self._start("munged", "munged", "--foreground", "--force", "--num-threads=2", *options)
        until(socket_.exists, "munged")
        if self.accounting:
            self._start_accounting()
        self.start("slurmctld")
        for node in self.nodes:
            self.start(node)
        self.wait_idle()

    def start(self, name: str) -> None:
        """Start slurmctld or a node."""
        if name == "slurmctld":
            self._start(name, "slurmctld", "-D")
            until(lambda: "UP" in self.say("scontrol", "ping"), name)
        else:
            self._start(name, "slurmd", "-D", "-N", name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a daemon a signal, and wait until it is gone."""
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(30)

    def wait_idle(self) -> None:
        """Wait until every node would take a job."""
        until(lambda: self.say("sinfo", "-h", "-N", "-p", "gpu", "-o", "%t").split() == ["idle"] * NODES, "nodes")

    def let_in(self) -> None:
        """Let jobs run again on nodes that Slurm has drained."""
        drained = {
            line.split()[0] for line in self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines() if "drain" in line
        }
        for node in drained:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def break_spool(self, node: str) -> None:
        """Take away the folder in which a node's slurmd keeps batch scripts."""
        (self.lab / "spool" / node).rename(self.lab / "spool" / f"{node}.away")

    def mend_spool(self, node: str) -> None:
        """Give it back."""
        (self.lab / "spool" / f"{node}.away").rename(self.lab / "spool" / node)

    def wipe(self) -> None:
        """Let Slurm forget everything, so that job ids begin at 1 again."""
        for name in ("slurmctld", *self.nodes):
            self.kill(name)
        for folder in ("state", "spool"):
            shutil.rmtree(self.lab / folder)
            (self.lab / folder).mkdir()
        for name in ("slurmctld", *self.nodes):
            self.start(name)
        self.wait_idle()

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Call a program of Slurm, which must succeed."""
        environ = {**os.environ, **self.environ}
        ran = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        return ran.stdout

    def say(self, *command: str) -> str:
        """Return what a program of Slurm writes, whether it succeeds or not."""
        environ = {**os.environ, **self.environ}
        try:
            return subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=10, check=False
            ).stdout.strip()
        except subprocess.TimeoutExpired:
            return ""

    def states(self, job: str) -> list[str]:
        """Return the states of a job's tasks, in order."""
        return self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T", "--sort=i").split()

    def pids(self, job: str, *, rank: int | None = None, program: str = "") -> list[int]:
        """Return the processes of an array's task ("123_4"): all of them, those that Slurm started as a rank, or those
        whose command line holds a program's name."""
        array, _, task = job.partition("_")
        wanted = {f"SLURM_CONF={self.conf}", f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={task}"}
        if rank is not None:
            wanted.add(f"SLURM_PROCID={rank}")
        return sorted(pid for pid, environ in processes() if wanted <= environ and program in command_line(pid))

    def down(self) -> None:
        """Kill everything of this cluster, jobs included."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        kill_all(pid for pid, environ in processes() if f"SLURM_CONF={self.conf}" in environ and pid != os.getpid())
        os.close(self._lock)

    def describe(self) -> str:
        """Return what Slurm says of its jobs and nodes, and the ends of its logs: for whoever reads a failure."""
        asked = [("squeue", "-r", "-t", "all", "-o", "%.9i %.10j %.11T %.20r %.9N %.19S %E"), ("sinfo", "-N", "-l")]
        parts = [f"$ {' '.join(command)}\n{self.say(*command)}" for command in asked]
        jobs = self.say("scontrol", "-o", "show", "jobs").splitlines()
        parts.append("\n".join(job for job in jobs if re.search("JobState=(PENDING|RUNNING|COMPLETING|REQUEU)", job)))
        return "\n".join(
            [*parts, *(tail(log, 40) for log in sorted([*self.lab.glob("*.log"), *self.lab.glob("*.out")]))]
        )

    def _start(self, name: str, *command: str) -> None:
        with (self.lab / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                cwd=self.lab,
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _configure(self) -> None:
        host, user = socket.gethostname().partition(".")[0], str(os.getuid())
        for number in range(GPUS):
            (self.lab / f"gpu{number}").symlink_to("/dev/null")
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=64000 "
            f"Gres=gpu:h200:{GPUS} State=UNKNOWN"
            for node, port in zip(self.nodes, self._ports[3:], strict=True)
        ]
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = (
                f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={self._ports[1]}\nAccountingStoragePass={self.lab}/munge.sock"
            )
        values = {"lab": self.lab, "host": host, "user": _user(user), "port": self._ports[0], "count": NODES}
        self.conf.write_text(CONF.format(**values, nodes="\n".join(lines), accounting=accounting))
        (self.lab / "gres.conf").write_text(f"Name=gpu Type=h200 File={self.lab}/gpu[0-{GPUS - 1}]\n")
        dbd = self.lab / "slurmdbd.conf"
        dbd.write_text(DBD_CONF.format(**{**values, "port": self._ports[1]}, mysql=self._ports[2]))
        dbd.chmod(0o600)

    def _start_accounting(self) -> None:
        """Start the accounts, from a copy of empty ones: making those takes the longest."""
        kept = Path(tempfile.gettempdir()) / f"genrun-slurm-accounts-{os.getuid()}"
        with locked(kept.with_suffix(".lock")):
            if not kept.exists():
                self._make_accounts()
                for name in ("slurmdbd", "mariadbd"):
                    self.kill(name, signal.SIGTERM)
                shutil.copytree(self._mysql, new := kept.with_suffix(".new"), dirs_exist_ok=True)
                new.rename(kept)
        if not self._mysql.exists():
            shutil.copytree(kept, self._mysql)
        self._start_mariadbd()
        self._start_slurmdbd()

    @property
    def _mysql(self) -> Path:
        return self.lab / "mysql"

    def _make_accounts(self) -> None:
        install = (
            "mariadb-install-db",
            "--no-defaults",
            f"--user={_user(str(os.getuid()))}",
            f"--datadir={self._mysql}",
        )
        size = f"--innodb-log-file-size={LOG_SIZE}"
        self.run(*install, size, "--auth-root-authentication-method=normal", "--skip-test-db")
        self._start_mariadbd()
        self.run("mariadb", "--no-defaults", f"--socket={self.lab}/mysql.sock", "-uroot", "-e", GRANT)
        self._start_slurmdbd()
        self.run("sacctmgr", "-i", "add", "cluster", "lab")

    def _start_mariadbd(self) -> None:
        socket_ = f"--socket={self.lab}/mysql.sock"
        self._start(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            f"--user={_user(str(os.getuid()))}",
            f"--datadir={self._mysql}",
            socket_,
            # One that starts removes the temporary tables that it finds there, and so those of its neighbours.
            f"--tmpdir={self.lab}",
            f"--pid-file={self.lab}/mysql.pid",
            "--bind-address=127.0.0.1",
            f"--port={self._ports[2]}",
            "--innodb-buffer-pool-size=32M",
            f"--innodb-log-file-size={LOG_SIZE}",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
        )
        client = ("mariadb", "--no-defaults", socket_, "-uroot")
        until(lambda: "1" in self.say(*client, "-e", "select 1"), "mariadbd")

    def _start_slurmdbd(self) -> None:
        self._start("slurmdbd", "slurmdbd", "-D")
        until(lambda: "|" in self.say("sacctmgr", "-n", "-P", "list", "user", "format=user,account"), "slurmdbd")


@contextmanager
def running(*, accounting: bool = False) -> Iterator[Cluster]:
    """Lend a cluster of its own, with its files in a folder whose path is short enough for sockets."""
    lab = Path(tempfile.mkdtemp(prefix="genrun-slurm-"))
    lab.chmod(0o755)
    cluster = Cluster(lab, accounting=accounting)
    try:
        try:
            cluster.up()
        except AssertionError as error:
            error.add_note(cluster.describe())
            raise
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(lab, ignore_errors=True)


def tail(log: Path, count: int) -> str:
    """Return a file's name and its last lines."""
    lines = log.read_text(errors="replace").splitlines()[-count:]
    return "\n".join([f"--- {log}", *lines])


def processes() -> Iterator[tuple[int, set[str]]]:
    """Yield this machine's processes with their environments, as far as they may be read."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(process.name), set((process / "environ").read_text(errors="replace").split("\0"))


def command_line(pid: int) -> str:
    """Return a process's command line; nothing where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes at once; one that has ended meanwhile, as another's end ends it, is no error."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(is_so: Callable[[], object], what: str, timeout_s: float = 90.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)


def take_ports(count: int) -> tuple[int, list[int]]:
    """Take ports that nobody listens on, and that no other cluster of this machine takes before the lock is closed.

    They lie above those that the kernel hands out to whoever connects.

    Returns:
        The descriptor of the lock, and the ports.
    """
    folder = Path(tempfile.gettempdir()) / f"genrun-slurm-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for first in PORTS[:: count + 1]:
        lock = os.open(folder / str(first), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        ports = list(range(first, first + count))
        if all(map(_is_free, ports)):
            return lock, ports
        os.close(lock)
    raise AssertionError(f"no {count} free ports in {PORTS}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def missing(*, accounting: bool = False) -> list[str]:
    """Return the programs that a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS + (ACCOUNTING if accounting else ()) if shutil.which(name, path=PATH) is None]


def _user(number: str) -> str:
    import pwd

    return pwd.getpwuid(int(number)).pw_name
