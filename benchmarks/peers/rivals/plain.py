"""The common job as a plain loop over sites: one process, one thread, no framework."""

from task import ROUNDS, SITES, auroc, dp_epoch, make_model, tell

model = make_model()
history = {}
for number in range(ROUNDS):
    mean = dict.fromkeys(model.state_dict(), 0.0)
    for site in range(SITES):
        own = make_model()
        own.load_state_dict(model.state_dict())
        trained, history[site], epsilon = dp_epoch(own, site, number, history.get(site))
        mean = {name: mean[name] + value / SITES for name, value in trained.items()}
    model.load_state_dict(mean)
tell(auroc=auroc(model), epsilon=epsilon)
