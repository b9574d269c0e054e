"""Dose, voltage and optics groups of movies, as their Acquisitions say them."""
from io import StringIO

import emtable

from ..contract.errors import InputError
from .sets import enabled_items


def optics_rows(acquisition):
    """Rows (column -> text) of the RELION optics table that travels in an Acquisition; empty if there is none."""
    text = acquisition.opticsGroupInfo.get() if acquisition is not None else None
    if not text:
        return []
    table = emtable.Table()
    table.readStar(StringIO(text), tableName="optics", guessType=False)
    return [dict(zip(table.getColumnNames(), map(str, row))) for row in table]


def optics_of(item, rows):
    """The row of an item's optics group; the first if it names none; an empty one without rows."""
    number = item.getAttributeValue("_rlnOpticsGroup", None)
    by_number = {int(float(row.get("rlnOpticsGroup", 1))): row for row in rows}
    return by_number.get(int(number) if number is not None else None, rows[0] if rows else {})


def exposure_of(movie, movies):
    """(e/A^2 per frame or None, e/A^2 before the first, kV) of a movie: its own, as joined sets differ in it; where it has none that of the set."""
    common = movies.getAcquisition()
    own = movie.getAcquisition() or common
    dosed = own if own.getDosePerFrame() else common
    return dosed.getDosePerFrame() or None, dosed.getDoseInitial() or 0.0, own.getVoltage() or common.getVoltage()


def require_exposures(movies):
    """Raises InputError if the dose of a movie is unknown, or if the movies' voltages differ and their optics groups do not say so."""
    found = {exposure_of(movie, movies)[::2] for movie in enabled_items(movies)}
    if not all(dose for dose, _ in found):
        raise InputError("the movies have no dose per frame: import them again with it, or set it with a protocol that edits sets; it decides "
                         "how frames are weighted")
    voltages = sorted({voltage for _, voltage in found if voltage})
    if len(voltages) > 1 and not _optics_tell_voltages(movies):
        raise InputError("the movies were taken at %s kV, and their optics groups do not say which of them at what: give the movies of each "
                         "voltage to a run of their own" % " and ".join("%g" % voltage for voltage in voltages))


def _optics_tell_voltages(movies):
    rows = optics_rows(movies.getAcquisition())
    told = {(exposure_of(movie, movies)[2], optics_of(movie, rows).get("rlnVoltage")) for movie in enabled_items(movies)}
    return all(text not in (None, "None") and float(text) == voltage for voltage, text in told)


def initial_dose(movies):
    """e/A^2 before the first frame. Raises InputError if movies differ in it."""
    found = {exposure_of(movie, movies)[1] for movie in enabled_items(movies)}
    if len(found) > 1:
        raise InputError("the movies have several doses before their first frame: give the dose before the first frame")
    return found.pop() if found else movies.getAcquisition().getDoseInitial()
