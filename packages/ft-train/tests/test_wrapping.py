"""What a model is wrapped in is looked up by its type, and a library that falls back silently is found out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ft_core.errors import FtError
from ft_train.distributed.deepspeed_config import read_deepspeed
from ft_train.distributed.division import Division
from ft_train.distributed.fsdp import shard
from ft_train.distributed.fsdp_settings import FsdpSettings, read_fsdp
from ft_train.distributed.wrapping import check_wrapped, how_wrapped

FSDP = Division(fsdp=read_fsdp("full_shard", None))
ZERO3 = Division(deepspeed=read_deepspeed("default-zero3"))


@pytest.fixture
def group() -> Iterator[None]:
    """A group of one process, which wrappers ask for."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_the_type_tells_how_a_model_is_divided(lab):
    assert how_wrapped(lab.model()) == "whole"
    assert how_wrapped(DistributedDataParallel(lab.model())) == "DDP"
    assert how_wrapped(shard(lab.model(), FsdpSettings(), "cpu")) == "FSDP2"


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("division", "wanted"), [(FSDP, "FSDP2"), (ZERO3, "ZeRO-3")])
def test_what_falls_back_to_ddp_is_refused(lab, division, wanted):
    plan = replace(lab.plan(), world_size=2, division=division)
    message = rf"to train by {wanted}, and the model is wrapped as DDP \(DistributedDataParallel\)"
    with pytest.raises(FtError, match=message):
        check_wrapped(DistributedDataParallel(lab.model()), plan)


@pytest.mark.usefixtures("group")
def test_a_whole_model_suits_one_process_only(lab):
    plan = lab.plan()
    check_wrapped(lab.model(), plan)
    with pytest.raises(FtError, match="to train by DDP, and the model is wrapped as whole"):
        check_wrapped(lab.model(), replace(plan, world_size=2))
    check_wrapped(DistributedDataParallel(lab.model()), replace(plan, world_size=2))
    with pytest.raises(FtError, match="to train by FSDP2, and the model is wrapped as whole"):
        check_wrapped(lab.model(), replace(plan, division=FSDP))
    check_wrapped(shard(lab.model(), FsdpSettings(), "cpu"), replace(plan, division=FSDP))
