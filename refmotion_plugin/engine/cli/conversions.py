"""What the commands do that read and write other programs' files."""
from pathlib import Path

from refmotion_plugin.contract import exchange
from refmotion_plugin.contract.errors import InputError

from .exit_codes import EXIT_FINE


def convert_weights_command(values):
    """``refmotion convert-weights``."""
    target, group = Path(values["out"]), values["group"] - 1
    if values["pre_exposure"] and values["dose_per_frame"] is None:
        raise InputError("--pre-exposure alone says nothing of the frames' doses: give --dose-per-frame too")
    exposure = None if values["dose_per_frame"] is None else exchange.Exposure(values["dose_per_frame"], values["pre_exposure"])
    weights = exchange.read_weights(values["input"], exposure, values["pixel"], values["normalisation"])
    weights = exchange.for_exposure(weights, exposure, values["frames"])
    exchange.write_weights(target, weights, group, values["pixel"], values["bins"], values["voltage"])
    frames, groups = len(weights.dose_e_per_A2), len(weights.weight)
    print("%s: %d frames to %.1f e/A^2, %d optics group%s" % (target, frames, weights.dose_e_per_A2[-1], groups, "s" * (groups > 1)))
    damage, _ = exchange.damage_sentence(weights, group, values["voltage"])
    if damage:
        print(damage)
    if groups > 1 and target.suffix not in (".npz", ".json"):
        print("this format holds one optics group: %d of %d was written, --group takes another" % (group + 1, groups))
    if target.suffix == ".star":
        print("B-factors describe these weights to within %.1f %% of the mean weight up to 3 A" % (100 * exchange.b_factor_misfit(weights, group)))
    return EXIT_FINE


def convert_hyperparameters_command(values):
    """``refmotion convert-hyperparameters``."""
    prior = exchange.read_hyperparameters(values["input"])
    exchange.write_hyperparameters(values["out"], prior)
    print("%s: velocity %.3g, acceleration %.3g A per e/A^2, correlation distance %.0f A, as this program counts them"
          % (values["out"], prior.velocity_sigma, prior.acceleration_sigma, prior.correlation_distance_angstrom))
    lost = exchange.lost_in_relion(prior) if Path(values["out"]).suffix == ".txt" else []
    if lost:
        print("RELION's prior has no %s: the same strengths mean another prior there" % ", ".join(lost))
    return EXIT_FINE
