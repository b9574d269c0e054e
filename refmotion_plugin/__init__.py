"""Reference-based motion correction of cryo-EM movies: a Scipion plugin and its engine.

Importing this package needs neither Scipion nor torch: the host asks for ``Plugin``, which is loaded at that moment.
"""
import os

__version__ = "0.2.0.dev0"
_logo = "icon.png"
_references = ["Zivanov2019", "Grant2015"]

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
if (not os.path.isdir(os.path.join(_HERE, "protocols")) and os.path.isdir(os.path.join(_ROOT, "protocols"))
        and os.path.isfile(os.path.join(_ROOT, "setup.py"))):
    # Source tree: refmotion_plugin.protocols is <root>/protocols. Appended, since the host takes __path__[0] for this folder.
    __path__.append(_ROOT)


def __getattr__(name):
    if name == "Plugin":
        from .scipion_plugin import Plugin
        return Plugin
    raise AttributeError("module %r has no attribute %r" % (__name__, name))
