"""The common job on Flower's `run_simulation` with Ray; a site's accountant lies in its context."""

import os

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from task import PATIENTS, ROUNDS, SITES, auroc, dp_epoch, make_model, tell

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context):
    site = int(context.node_config["partition-id"])
    number = int(message.content["config"]["server-round"]) - 1
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    history = None
    if "dp" in context.state:
        kept = context.state["dp"]
        history = list(zip(kept["noise"], kept["rate"], map(int, kept["steps"]), strict=True))
    trained, history, epsilon = dp_epoch(model, site, number, history)
    context.state["dp"] = ConfigRecord(
        {
            "noise": [float(noise) for noise, _, _ in history],
            "rate": [float(rate) for _, rate, _ in history],
            "steps": [int(steps) for _, _, steps in history],
        }
    )
    metrics = MetricRecord({"num-examples": PATIENTS, "epsilon": epsilon})
    content = RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics})
    return Message(content=content, reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context):
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=SITES,
        min_available_nodes=SITES,
    )
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord(make_model().state_dict()), num_rounds=ROUNDS
    )
    model = make_model()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    epsilon = list(result.train_metrics_clientapp.values())[-1]["epsilon"]
    tell(auroc=auroc(model), epsilon=epsilon)


if __name__ == "__main__":
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=SITES,
        backend_config={
            "init_args": {"num_cpus": os.cpu_count(), "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
        },
    )
