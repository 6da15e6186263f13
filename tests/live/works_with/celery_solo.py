from __future__ import annotations

import celery_tasks


if __name__ == "__main__":
    print(celery_tasks.answers("solo"))
