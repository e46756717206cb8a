"""An SSH server with SFTP on a free port of this machine: prints the port, serves until it is killed.

python -m tests.ssh_server FOLDER [FILES]

It opens so many FILES for writing; at the next one it prints a line and never answers.
"""

import asyncio
import sys
from pathlib import Path

import asyncssh


class Files(asyncssh.SFTPServer):
    """The files of the machine, of which only some may be written."""

    left = float("inf")

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a file."""
        if pflags & asyncssh.FXF_WRITE:
            Files.left -= 1
            if Files.left < 0:
                print("no more", flush=True)
                await asyncio.Event().wait()
        return super().open(path, pflags, attrs)


async def serve(folder: Path) -> None:
    """Serve to whoever holds the key folder/user."""
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
        Files.left = int(sys.argv[2])
    asyncio.run(serve(Path(sys.argv[1])))
