"""The child's side of a session: its directory, its opencode session, its events.

Where a turn reaches opencode: everything that it needs from the child goes through a `ChildSession`, which
is valid for one boot of the child. The turn stays with that boot, also while another one takes new turns.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sidecar.aiokit import Callbacks
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.managed.child.mcp_servers import McpServers
from sidecar.managed.child.mirror import Mirror
from sidecar.managed.child.permission_watch import PermissionWatch
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import Violation
from sidecar.managed.turns.state import PACKAGES, SessionRecord
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.managed.workspaces.packages import Packages
from sidecar.managed.workspaces.repositories import Repositories, staging_of
from sidecar.masking import IN_USE, Mask
from sidecar.naming import GATEWAY_PROVIDER, ModelRef
from sidecar.opencode.boot import Boot, Loss
from sidecar.opencode.child import Child
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import AGENT
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.wire.external_directory import OPEN, Rule
from sidecar.wire.opencode_events import ChildEvent, prompt_part_id

if TYPE_CHECKING:
    from sidecar.managed.workspaces.archives import SessionArchives

Sink = Callable[[ChildEvent | Violation], None]
EndProcesses = Callable[[Path], Awaitable[object]]
"""Ends every process of the session with that directory."""


async def _end_nothing(_directory: Path) -> None:
    """Where sessions have no processes of their own: tests."""


class ChildSession:
    """One opencode session in one boot of the child, ready for prompts."""

    def __init__(
        self,
        *,
        client: ChildClient,
        directory: Path,
        session_id: str,
        end_processes: EndProcesses,
        watch: PermissionWatch,
        mask: Mask,
        preamble: str = "",
    ) -> None:
        self._watch = watch
        self._preamble = preamble
        self._client = client
        self._end_processes = end_processes
        self._directory = directory
        self.session_id = session_id
        self._mask = mask

    async def prompt(
        self,
        *,
        message_id: str,
        model: ModelRef,
        parts: Sequence[Mapping[str, Any]],
        system: str | None,
        variant: str | None,
    ) -> None:
        """Send a prompt; its progress arrives at the sink. Sent again, it replaces itself."""
        if self._preamble:
            id_ = prompt_part_id(message_id, 0)
            parts = [{"id": id_, "type": "text", "text": self._preamble}, *parts]
        await self._client.prompt_async(
            self.session_id,
            message_id=message_id,
            model=model,
            parts=parts,
            agent=AGENT,
            system=system,
            variant=variant,
        )

    async def abort(self) -> None:
        """Stop the running turn, and every process that the session has."""
        try:
            await self._client.abort(self.session_id)
        finally:
            await self._end_processes(self._directory)

    async def is_busy(self) -> bool:
        """Whether opencode is working on the session, retries included."""
        return self.session_id in await self._client.session_status(self._directory)

    async def has_taken(self, message_id: str) -> bool:
        """Whether opencode works on that prompt, or has begun to answer it in an earlier boot."""
        if await self.is_busy():
            return True
        return any(m["info"].get("parentID") == message_id for m in await self.messages())

    async def messages(self) -> list[dict[str, Any]]:
        """Return the newest messages, oldest first, to repair a gap in the events."""
        return self._mask.json(await self._client.messages(self.session_id, limit=50))

    async def reply_permission(
        self, permission_id: str, reply: Literal["once", "reject"], message: str | None = None
    ) -> None:
        """Answer a permission request."""
        self._watch.note_sent(permission_id, reply)
        await self._client.reply_permission(
            permission_id, self._directory, reply=reply, message=message
        )

    async def reject_question(self, question_id: str) -> None:
        """Reject a question: there is no user who could answer it."""
        await self._client.reject_question(question_id, self._directory)


_LOSSES: Mapping[Loss, str] = {
    "exited": "stopped unexpectedly",
    "unresponsive": "did not answer any more",
    "ended": "is being restarted",
    "overdue": "was replaced, and the turn took too long to end",
}
"""What clients read after "opencode" where a boot is over and their turn with it."""


class ChildSessions:
    """Opens `ChildSession`s, and reports to each when its boot is over."""

    def __init__(
        self,
        *,
        supervisor: Child,
        instances: Instances,
        pump: EventPump,
        mcp_servers: McpServers,
        repositories: Repositories,
        workspaces_dir: Path,
        prompt_wait_seconds: float,
        mirror: Mirror | None = None,
        archives: SessionArchives | None = None,
        packages: Packages | None = None,
        external: Sequence[Rule] = OPEN,
        end_processes: EndProcesses = _end_nothing,
        private_dir: Path | None = None,
    ) -> None:
        self._mirror = mirror
        self._archives = archives
        self._packages = packages
        self._supervisor = supervisor
        self._instances = instances
        self._pump = pump
        self._mcp_servers = mcp_servers
        self._repositories = repositories
        self._workspaces_dir = workspaces_dir
        self.prompt_wait_seconds = prompt_wait_seconds
        self._external = external
        self._private_dir = private_dir
        self.watch = PermissionWatch()
        self._tool_ended = Callbacks[[str]]("end of a tool")
        self._end_processes = end_processes
        self._open: dict[Boot, Callbacks[[str]]] = {}
        supervisor.on_lost(self._lose)

    def _lose(self, boot: Boot, loss: Loss) -> None:
        """Report the end of a boot to the turns that it had, and to no other."""
        self._instances.forget(boot)
        if (sessions := self._open.pop(boot, None)) is not None:
            sessions(_LOSSES[loss])

    def on_tool_end(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the session's id whenever one of its tools has ended."""
        self._tool_ended.add(callback)

    async def has_turns(self, boot: Boot | None, *, is_excluded: Callable[[str], bool]) -> bool:
        """Return whether a boot (None: any) works on any turn, of opencode's own API or ours.

        Sessions of ours are skipped where `is_excluded(session_id)` is true.
        """
        return await self._instances.has_turns(
            boot, but=lambda directory: is_excluded(directory.name)
        )

    def directory(self, session_id: str) -> Path:
        """Return the session's own directory. The id is one we made, never a client's text."""
        return self._workspaces_dir / session_id

    def directories(self, session_id: str) -> list[Path]:
        """Return all directories of the session: its own first, what its commands have for themselves, and
        where its repositories are cloned.
        """
        own = self.directory(session_id)
        beside = [self._private_dir / session_id] if self._private_dir is not None else []
        return [own, *beside, staging_of(own)]

    async def prepare_directory(self, record: SessionRecord) -> list[Failure]:
        """Restore or clone what the session's directory lacks; return what could not be cloned.

        Raises TurnFailedError for files that cannot be restored.
        """
        await self._restore_files(record.id)
        if not record.body["resources"]:
            return []
        directory = self.directory(record.id)
        directory.mkdir(parents=True, exist_ok=True)
        return await self._repositories.materialise(record.id, directory)

    async def _restore_files(self, session_id: str) -> None:
        if self._archives is not None and await self._archives.restore(session_id):
            # opencode may have the directory loaded, from when the session was here before.
            await self._instances.unload(self.directory(session_id))

    @asynccontextmanager
    async def open(
        self,
        record: SessionRecord,
        sink: Sink,
        *,
        wait_seconds: float,
        on_lost: Callable[[str], None],
        is_reloaded: bool = False,
    ) -> AsyncIterator[ChildSession]:
        """Wait for the child, load the directory with the session's model, follow its events.

        `on_lost` is called when the boot that has the session is over, with what completes "opencode ...".
        `is_reloaded` has it loaded anew: an abort at a bad moment can leave a directory that drops every
        prompt. Creates the session in opencode when the record names none; the caller notes its id, and that
        its tools are current. Raises ChildUnavailableError when the child is not ready in time.
        """
        await self._supervisor.wait_ready(wait_seconds)
        directory = self.directory(record.id)
        await self._restore_files(record.id)
        directory.mkdir(parents=True, exist_ok=True)
        if is_reloaded or record.has_stale_tools:
            # After a change of the session's tools its servers are added anew with the next load.
            await self._instances.unload(directory)
        model = ModelRef.parse(record.model_ref)
        gateway_model = model.model_id if model.provider == GATEWAY_PROVIDER else None

        mask = await self._mask_of(record)

        async def connect(client: ChildClient) -> None:
            for key, entry in (await self._mcp_servers.entries(record)).items():
                try:
                    statuses = await client.add_mcp(directory, key, entry)
                except ChildError as error:
                    error.message = mask.text(error.message)
                    raise
                self._mcp_servers.check(record, key, mask.json(statuses))

        async with self._instances.use(directory, gateway_model, on_loaded=connect) as boot:
            client, preamble = boot.client, ""
            if self._packages is not None and record.body.get(PACKAGES):
                await self._packages.install(client, record.body[PACKAGES], directory, model=model)
            await self._pump.wait_connected(boot)
            if self._mirror is not None:
                preamble = await self._mirror.restore(client, record, directory)
            session_id = await self._ensure_session(
                client, record, directory, is_new=bool(preamble)
            )
            if self._archives is not None:
                preamble += self._archives.preamble(record.id)

            def watched(event: ChildEvent) -> None:
                sink(replace(event, properties=mask.json(event.properties)) if mask else event)
                if (alarm := self.watch.alarm_of(event)) is not None:
                    sink(alarm)
                if _is_tool_end(event):
                    self._tool_ended(record.id)

            if boot.is_over:
                raise ChildUnavailableError("opencode has just ended", retry_after_seconds=1.0)
            unsubscribe = self._pump.subscribe(boot, session_id, watched)
            lost = self._open.setdefault(boot, Callbacks("loss of opencode")).add(on_lost)
            try:
                yield ChildSession(
                    client=client,
                    directory=directory,
                    session_id=session_id,
                    end_processes=self._end_processes,
                    watch=self.watch,
                    mask=mask,
                    preamble=preamble,
                )
            finally:
                lost()
                unsubscribe()

    async def _mask_of(self, record: SessionRecord) -> Mask:
        """Return what replaces the session's tokens where a server, or a file of it, says them again.

        Variables of vaults are not among them: the agent may show what it was given.
        """
        tokens = await self._mcp_servers.tokens_of(record)
        if record.body["resources"]:
            tokens += await self._repositories.tokens_of(record.id)
        IN_USE.add(*tokens)
        return Mask(tokens)

    async def abort(self, record: SessionRecord) -> None:
        """Have the child stop what it may be doing for the session, if it is there."""
        client = self._client_of(record)
        if client is not None and record.child_session_id is not None:
            with contextlib.suppress(ChildError):
                await client.abort(record.child_session_id)
        await self._end_processes(self.directory(record.id))

    async def forget(self, record: SessionRecord) -> None:
        """Delete the session in the child, if the child is there, and end its processes.

        Its data goes with the directory.
        """
        await self._end_processes(self.directory(record.id))
        client = self._client_of(record)
        if client is not None and record.child_session_id is not None:
            await client.delete_session(record.child_session_id)

    def _client_of(self, record: SessionRecord) -> ChildClient | None:
        """Return the client of the boot that has the session, of the current one where none has it loaded."""
        boot = self._instances.boot_of(self.directory(record.id)) or self._supervisor.current
        return boot.client if boot is not None else None

    async def _ensure_session(
        self, client: ChildClient, record: SessionRecord, directory: Path, *, is_new: bool = False
    ) -> str:
        plan = ToolPlan(record.agent["tools"], record.agent["mcp_servers"])
        if record.child_session_id is not None and not is_new:
            if record.has_stale_tools:
                rules = plan.rules(self._external)
                await client.update_session_permission(record.child_session_id, rules)
            return record.child_session_id
        return await client.create_session(
            directory,
            title=record.body["title"] or record.id,
            permission=plan.rules(self._external),
        )


def _is_tool_end(event: ChildEvent) -> bool:
    if event.type != "message.part.updated":
        return False
    part = event.properties["part"]
    return part["type"] == "tool" and part["state"]["status"] in {"completed", "error"}


def prompt_parts(message_id: str, content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turn a user message's blocks into opencode's prompt parts. Raises ChildError for unknown ones.

    The parts get ids of their own, in order: a prompt that is sent again would else be appended to itself.
    """
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(content, start=1):
        if block["type"] == "text":
            parts.append({"type": "text", "text": block["text"]})
        elif block["type"] in {"image", "document"}:
            parts.append(_file_part(block, number))
        else:
            raise ChildError(f"content block {block['type']!r} cannot be given to opencode")
    # From 1: number 0 is a preamble's.
    return [{"id": prompt_part_id(message_id, n), **part} for n, part in enumerate(parts, start=1)]


def _file_part(block: Mapping[str, Any], number: int) -> dict[str, Any]:
    source = block["source"]
    name = block.get("title") or f"{block['type']}-{number}"
    if source["type"] == "url":
        mime = "image/*" if block["type"] == "image" else "application/pdf"
        return {"type": "file", "mime": mime, "url": source["url"], "filename": name}
    if source["type"] == "text":
        heading = f"{name}\n{block['context']}" if block.get("context") else name
        return {
            "type": "text",
            "text": f'<document title="{heading}">\n{source["data"]}\n</document>',
        }
    if source["media_type"] == "text/plain":
        text = base64.b64decode(source["data"]).decode("utf-8", "replace")
        return {"type": "text", "text": f'<document title="{name}">\n{text}\n</document>'}
    url = f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "file", "mime": source["media_type"], "url": url, "filename": name}
