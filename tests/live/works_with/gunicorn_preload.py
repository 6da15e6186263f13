from __future__ import annotations

from nested import double, get, pool_inside, server

from coresize import ProcessPoolExecutor


POOL = ProcessPoolExecutor(1)


def app(environ, start):
    try:
        if environ["PATH_INFO"] == "/inside":
            text = str(pool_inside([1, 2]))
        else:
            text = str(POOL.submit(double, 3).result())
    except RuntimeError:
        text = "refused by a RuntimeError"
    start("200 OK", [])
    return [text.encode()]


if __name__ == "__main__":
    words = ["gunicorn", "--preload", "--bind=127.0.0.1:0", "gunicorn_preload:app"]
    with server(*words) as address:
        inside, before = get(f"{address}/inside"), get(f"{address}/before")
    print(f"in a request {inside}; the pool from before the fork: {before}")
else:
    POOL.submit(abs, -1).result()
