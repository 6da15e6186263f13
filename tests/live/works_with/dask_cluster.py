from __future__ import annotations

import distributed
from nested import double, pool_inside

from coresize import plan_workers, run_batch


if __name__ == "__main__":
    plan = plan_workers(max_workers=1)
    cluster = distributed.LocalCluster(
        n_workers=plan,
        threads_per_worker=plan.threads_per_worker,
        dashboard_address=None,
    )
    with cluster, distributed.Client(cluster) as client:
        inside = client.submit(pool_inside, [1, 2]).result()
        run = run_batch(double, [1, 2], executor=client.get_executor(), progress=False)
        print(f"in the task {inside}, by the batch {run.results()}")
