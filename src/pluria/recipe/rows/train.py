"""Ways to get members from training runs."""

from pluria.recipe.method import TRAIN_LAWS, Method

WHOLE = "each training is the user's own, and resumes as it does"

TRAIN: tuple[Method, ...] = (
    Method("SWA", "train", "pluria.train.average:SWA", "the equal average of a run's iterates, one network",
           "a training run", TRAIN_LAWS),
    Method("EMA", "train", "pluria.train.average:EMA", "the fading average of a run's iterates, one network",
           "a training run", TRAIN_LAWS),
    Method("SWAG", "train", "pluria.train.swag:SWAG", "a Gaussian around a run's iterates, with a low-rank part",
           "a training run", TRAIN_LAWS),
    Method("multi_swag", "train", "pluria.train.swag:multi_swag", "draws around several independent runs",
           "several training runs", TRAIN_LAWS),
    Method("Snapshots", "train", "pluria.train.snapshot:Snapshots", "points of a run: SSE, FGE, cyclical SG-MCMC",
           "a training run, a cycle", TRAIN_LAWS),
    Method("IVON", "train", "pluria.train.ivon:IVON", "a diagonal Gaussian learned in place of the weights",
           "a training run of its own", TRAIN_LAWS),
    Method("SGLD", "train", "pluria.train.langevin:SGLD", "Langevin dynamics: samples of the posterior",
           "a training run of its own", TRAIN_LAWS),
    Method("SGHMC", "train", "pluria.train.langevin:SGHMC", "Langevin dynamics with momentum",
           "a training run of its own", TRAIN_LAWS),
    Method("independent", "train", "pluria.train.several:independent", "a training for each network: deep ensembles",
           "several trainings", TRAIN_LAWS[:2] + TRAIN_LAWS[3:], {"resume": WHOLE}),
    Method("local", "train", "pluria.train.several:local", "several trainings from one network",
           "several trainings", TRAIN_LAWS[:2] + TRAIN_LAWS[3:], {"resume": WHOLE}),
    Method("chain", "train", "pluria.train.several:chain", "each training from the one before (SSE by cycles)",
           "several trainings", TRAIN_LAWS[:2] + TRAIN_LAWS[3:], {"resume": WHOLE}),
    Method("star", "train", "pluria.train.several:star", "all trainings from the first (StarSSE)",
           "several trainings", TRAIN_LAWS[:2] + TRAIN_LAWS[3:], {"resume": WHOLE}),
    Method("batch_ensemble", "train", "pluria.train.factors:batch_ensemble", "rank-1 factors of every weight",
           "linear or conv layers, a training", TRAIN_LAWS),
    Method("lora", "train", "pluria.train.factors:lora", "low-rank updates of a frozen network (LoRA ensemble)",
           "linear layers, a training", TRAIN_LAWS),
    Method("late_phase", "train", "pluria.train.latephase:late_phase", "a few tensors replicated late in a run",
           "norm, linear or conv layers, a training", TRAIN_LAWS),
    Method("curve", "train", "pluria.train.curve:curve", "a bent path of low loss between two networks",
           "two networks, a training", TRAIN_LAWS),
    Method("subspace", "train", "pluria.train.curve:subspace", "a line or simplex of networks learned at once",
           "networks to begin at, a training", TRAIN_LAWS),
)  # fmt: skip
