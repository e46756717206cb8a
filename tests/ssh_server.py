"""An SFTP server on a free local port. It prints the port and serves until it is killed.

python -m tests.ssh_server FOLDER [FILES]

FOLDER receives the keys. After FILES files have been opened for writing, the server prints a line at the next one and
does not respond to it.
"""

import asyncio
import sys
from pathlib import Path

import asyncssh


class Files(asyncssh.SFTPServer):
    """All files of the machine; the number that can be opened for writing is limited."""

    remaining = float("inf")

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a file."""
        if pflags & asyncssh.FXF_WRITE:
            Files.remaining -= 1
            if Files.remaining < 0:
                print("no more", flush=True)
                await asyncio.Event().wait()
        return super().open(path, pflags, attrs)


async def serve(folder: Path) -> None:
    """Serve clients that have the private key folder/user."""
    host, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    user.write_private_key(folder / "user")
    (folder / "user").chmod(0o600)
    user.write_public_key(folder / "authorized")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=str(folder / "authorized"),
        sftp_factory=Files,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Files.remaining = int(sys.argv[2])
    asyncio.run(serve(Path(sys.argv[1])))
