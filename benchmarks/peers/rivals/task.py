"""The common job, as every rival runs it: imports only numpy, torch and Opacus.

Sites of 1,000 patients with 32 columns, an MLP 32-64-32-1 with tanh, Opacus' DP-SGD (noise 1.0,
clipping norm 1.0, SGD with rate 0.5, Poisson sampling at 1/16, 16 steps a round), equal weights,
the RDP accountant carried from round to round. `PEERS_SITES`, `PEERS_ROUNDS`, `PEERS_SEED` and
`PEERS_FIRST_MODEL` say which; without the last the model starts as torch starts it.
"""

import json
import os
import warnings

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

SITES = int(os.environ.get("PEERS_SITES", "10"))
ROUNDS = int(os.environ.get("PEERS_ROUNDS", "10"))
SEED = int(os.environ.get("PEERS_SEED", "1"))
PATIENTS, COLUMNS, BATCH, STEPS = 1000, 32, 64, 16
NOISE, CLIP, RATE, DELTA = 1.0, 1.0, 0.5, 1e-5
_TRUTH = np.random.default_rng(0).normal(size=COLUMNS)


def site_data(site, patients=PATIENTS):
    """Return a site's x [patients, 32] and y [patients, 1]."""
    rng = np.random.default_rng(1000 + site)
    x = rng.normal(size=(patients, COLUMNS)) + rng.normal(size=COLUMNS) * 0.2
    logit = x @ _TRUTH / 2 + 0.8 * np.sin(x[:, 0] * 2) + 0.5 * x[:, 1] * x[:, 2] - 0.5
    y = (rng.random(patients) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)[:, None]


def test_data():
    """Return 5,000 patients of ten other sites."""
    xs, ys = zip(*[site_data(900_000 + site, 500) for site in range(10)], strict=True)
    return torch.cat(xs), torch.cat(ys)


def make_model():
    """Return the job's model at its first round."""
    torch.manual_seed(SEED)
    widths = [nn.Linear(COLUMNS, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1)]
    model = nn.Sequential(*widths)
    if path := os.environ.get("PEERS_FIRST_MODEL"):
        with np.load(path) as first, torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(first[name]))
    return model


def auroc(model):
    """Return the AUROC of the test patients, by ranks."""
    x, y = test_data()
    model.eval()
    with torch.no_grad():
        scores = model(x)[:, 0].numpy()
    y = y[:, 0].numpy()
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positive = y.sum()
    negative = len(y) - positive
    return float((ranks[y == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def dp_epoch(model, site, number, history=None):
    """Train one round at one site; return the model, the accountant's history and epsilon."""
    from opacus import PrivacyEngine

    x, y = site_data(site)
    torch.manual_seed(SEED * 1_000_003 + number * 1009 + site)
    engine = PrivacyEngine(accountant="rdp")
    if history:
        engine.accountant.history = list(history)
    private, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
    )
    private.train()
    loss_of = nn.BCEWithLogitsLoss()
    for some_x, some_y in loader:
        optimizer.zero_grad()
        if len(some_x) == 0:
            continue
        loss_of(private(some_x), some_y).backward()
        optimizer.step()
    trained = {
        name.removeprefix("_module."): value.detach().clone()
        for name, value in private.state_dict().items()
    }
    return trained, engine.accountant.history, engine.accountant.get_epsilon(DELTA)


def tell(**figures):
    """Print what `python -m benchmarks.peers` reads: one line of JSON."""
    print("PEERS " + json.dumps(figures), flush=True)
