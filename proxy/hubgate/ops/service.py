"""What is a service manager told?

That we serve, by sd_notify(3): a datagram to the socket that it named when it started us. It is five lines, so there is
no library for it. Who was started by hand has nobody to tell.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def tell_serving() -> None:
    """Say that this process serves, if anybody wants to know. To be said again is fine: every worker does."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name outside of any file system, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        try:
            wire.sendto(b"READY=1", address)
        except OSError as error:
            # Then it ends us in a while for never having started: why should be in the log.
            log.warning("service_manager_silent", extra={"reason": error.strerror or str(error)})
