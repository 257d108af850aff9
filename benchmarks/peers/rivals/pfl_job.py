"""The common job on pfl-research's SimulatedBackend.

Its own privacy is of whole users, so local training is Opacus' in a subclass of its
FederatedAveraging.
"""

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from task import BATCH, RATE, ROUNDS, SITES, auroc, dp_epoch, make_model, site_data, tell
from torch import nn

HISTORY, EPSILON = {}, {}


class Model(nn.Sequential):
    def loss(self, x, y, eval=False):  # noqa: A002 - pfl's name
        return nn.functional.binary_cross_entropy_with_logits(self(x), y)

    def metrics(self, x, y, eval=False):  # noqa: A002 - pfl's name
        return {}


class PrivateAveraging(FederatedAveraging):
    def train_one_user(self, initial, model, user, context):
        site = int(user.user_id)
        own = make_model()
        own.load_state_dict(model.pytorch_model.state_dict())
        trained, HISTORY[site], EPSILON[site] = dp_epoch(
            own, site, context.current_central_iteration, HISTORY.get(site)
        )
        model.pytorch_model.load_state_dict(trained)
        return model.get_model_difference(initial), Metrics()


users = [str(site) for site in range(SITES)]
data = FederatedDataset(
    lambda user: PyTorchTensorDataset(site_data(int(user)), user_id=user),
    get_user_sampler("minimize_reuse", users),
)
net = Model(*make_model())
PrivateAveraging().run(
    NNAlgorithmParams(
        central_num_iterations=ROUNDS,
        evaluation_frequency=10**6,
        train_cohort_size=SITES,
        val_cohort_size=0,
    ),
    SimulatedBackend(training_data=data, val_data=None, postprocessors=[WeightByUser()]),
    PyTorchModel(
        net,
        lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        torch.optim.SGD(net.parameters(), lr=1.0),
    ),
    NNTrainHyperParams(local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=RATE),
    NNEvalHyperParams(local_batch_size=None),
    send_metrics_to_platform=False,
)
model = make_model()
model.load_state_dict(net.state_dict())
tell(auroc=auroc(model), epsilon=EPSILON[0])
