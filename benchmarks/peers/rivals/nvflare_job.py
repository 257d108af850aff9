"""The common job on NVIDIA FLARE's simulator: one thread, so one process, for each site."""

import os
from pathlib import Path

import torch
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv
from nvflare_net import Net
from task import ROUNDS, SITES, auroc, make_model, tell

HERE, SCRATCH = Path(__file__).parent, Path(os.environ["PEERS_SCRATCH"])

first = Net()
first.load_state_dict(make_model().state_dict())
torch.save(first.state_dict(), SCRATCH / "first.pt")
recipe = FedAvgRecipe(
    name="peers",
    min_clients=SITES,
    num_rounds=ROUNDS,
    model=first,
    train_script=str(HERE / "nvflare_client.py"),
    initial_ckpt=str(SCRATCH / "first.pt"),
    key_metric="epsilon",
)
# With fewer threads than sites each turn is a new process, and an accountant in it is lost.
run = recipe.execute(
    SimEnv(num_clients=SITES, num_threads=SITES, workspace_root=str(SCRATCH / "workspace"))
)
run.get_status()
[*_, found] = sorted(Path(run.get_result()).glob("server/**/FL_global_model.pt"))
state = torch.load(found, weights_only=False)
model = make_model()
model.load_state_dict(
    {key: torch.as_tensor(value) for key, value in state.get("model", state).items()}
)
tell(auroc=auroc(model), epsilon=float((SCRATCH / "epsilon").read_text()))
