from __future__ import annotations

from nested import get, server


if __name__ == "__main__":
    words = ["uvicorn", "--port=0", "--workers=2", "fastapi_app:app"]
    with server(*words) as address:
        print(f"in a request {get(f'{address}/double/1')}")
