"""A whole loreg on this machine, for trying it out: PostgreSQL, an S3 server, the server and a worker.

Run it with ``make serve``, stop it with Ctrl-C. Everything lies in temporary folders and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from services import ACCESS_KEY, SECRET_KEY, postgres_server, s3_server

LOREG = str(Path(sys.executable).with_name("loreg"))
PORT = "8470"


def main() -> None:
    token = "lrg_" + secrets.token_urlsafe(32)
    with postgres_server() as database, s3_server() as s3, contextlib.ExitStack() as stack:
        environment = {
            **os.environ,
            "LOREG_DATABASE_URL": database,
            "LOREG_STORAGE_URL": f"s3://{s3.bucket}/registry",
            "LOREG_STORAGE_ENDPOINT": s3.endpoint,
            "LOREG_ENDPOINT": "",
            "LOREG_ADMIN_TOKEN": token,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        subprocess.run([LOREG, "db", "upgrade"], env=environment, check=True)
        worker = subprocess.Popen([LOREG, "worker"], env=environment)
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        print(f"\n== in another terminal:\n\n   export LOREG_ENDPOINT=http://127.0.0.1:{PORT} LOREG_TOKEN={token}")
        print("   loreg push examples/adapters/minilm-news-topics-r8 team/news --task topics")
        print("   loreg search --task topics\n", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.run([LOREG, "serve", "--port", PORT, "--require-tokens"], env=environment, check=False)


if __name__ == "__main__":
    main()
