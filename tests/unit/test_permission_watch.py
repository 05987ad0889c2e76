"""Which of opencode's reports about permissions are an alarm."""

from __future__ import annotations

from typing import Literal

import pytest

from sidecar.managed.child.permission_watch import PermissionWatch
from sidecar.wire.opencode_events import ChildEvent

Reply = Literal["once", "always", "reject"]
SENT: list[Literal["once", "reject"] | None] = [None, "once", "reject"]


def reported(reply: Reply, *, session: str = "ses_root") -> ChildEvent:
    """Return opencode's report that the request was answered so."""
    properties = {"sessionID": session, "requestID": "per_1", "reply": reply}
    return ChildEvent("permission.replied", properties, None, session, "ses_root")


@pytest.mark.parametrize("session", ["ses_root", "ses_sub_agent"])
@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("reply", ["once", "always", "reject"])
def test_only_what_we_allowed_is_no_alarm(
    sent: Literal["once", "reject"] | None, reply: Reply, session: str
) -> None:
    """Where we rejected, or allowed once, another program that allowed or allowed more was faster."""
    watch = PermissionWatch()
    if sent is not None:
        watch.note_sent("per_1", sent)
    alarm = watch.alarm_of(reported(reply, session=session))
    is_alarm = reply == "always" or (reply == "once" and sent != "once")
    assert (alarm is not None, watch.alarms) == (is_alarm, int(is_alarm))
