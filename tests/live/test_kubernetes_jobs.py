"""Manifests, checked against the schemas of Kubernetes: no cluster is needed."""

from __future__ import annotations

import pytest
import yaml
from test_cluster_jobs import job

from coresize.launch import kubernetes


validate = pytest.importorskip("kubernetes_validate")

JOB = job(
    count=20,
    indices=tuple(range(20)),
    words=("python", "analyse.py", "--shard={shard}", "$HOME 'a'\n"),
    cores=2,
    memory=2**30,
    image="registry.example/analyse:1.0",
)
MORE = {"claim": ("journals", "/journals"), "seconds": 7200, "max_failed": 5}


@pytest.mark.parametrize("version", ["1.31", "1.35"])
@pytest.mark.parametrize(
    "fields", [{}, MORE, {**MORE, "indices": (3, 7), "retry": ("oom",), "cores": 0.5}]
)
def test_a_manifest_has_the_fields_that_kubernetes_knows(version, fields):
    manifest = yaml.safe_load(kubernetes.text(JOB.changed(**fields)))
    validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found():
    manifest = kubernetes.manifest(JOB)
    manifest["spec"]["backoffLimitPerShard"] = 3
    with pytest.raises(validate.ValidationError):
        validate.validate(manifest, "1.35", strict=True)
