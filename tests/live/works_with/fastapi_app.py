from __future__ import annotations

import asyncio
import contextlib
import queue

import fastapi
from nested import PATIENCE, double, get, server

from coresize import ProcessPoolExecutor


@contextlib.asynccontextmanager
async def lifespan(app):
    with ProcessPoolExecutor(1) as app.state.pool:
        app.state.done = queue.SimpleQueue()
        yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.get("/double/{number}")
async def answer(number: int, later: fastapi.BackgroundTasks) -> int:
    later.add_task(work_later, number + 1)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(app.state.pool, double, number)


def work_later(number):
    app.state.done.put(app.state.pool.submit(double, number).result())


@app.get("/done")
def done() -> int:
    return app.state.done.get(timeout=PATIENCE)


if __name__ == "__main__":
    with server("uvicorn", "--port=0", "fastapi_app:app") as address:
        now, later = get(f"{address}/double/1"), get(f"{address}/done")
    print(f"in a request {now}, in the background {later}")
