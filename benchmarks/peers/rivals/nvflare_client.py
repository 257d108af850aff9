"""One site of the common job in NVIDIA FLARE: the accountant lives as long as this process."""

import os
from pathlib import Path

import nvflare.client as flare
import torch
from task import STEPS, dp_epoch, make_model

flare.init()
site = int(flare.get_site_name().split("-")[-1]) - 1
history = None
while flare.is_running():
    received = flare.receive()
    if received is None:
        break
    model = make_model()
    model.load_state_dict({key: torch.as_tensor(value) for key, value in received.params.items()})
    trained, history, epsilon = dp_epoch(model, site, received.current_round, history)
    if site == 0:
        Path(os.environ["PEERS_SCRATCH"], "epsilon").write_text(repr(epsilon))
    meta = {"NUM_STEPS_CURRENT_ROUND": STEPS}
    flare.send(flare.FLModel(params=trained, metrics={"epsilon": epsilon}, meta=meta))
