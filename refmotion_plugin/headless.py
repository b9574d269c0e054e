"""Scipion without a window: an environment of its own and a project, for scripts, demonstrations and tests."""
import os
import sys


def prepare_environment(folder):
    """Point Scipion at ``folder`` (made if absent) unless the environment already says where it lives.

    Must be called before pyworkflow is imported for the first time: it reads these variables then.
    """
    folder = os.path.abspath(folder)
    values = {"SCIPION_DOMAIN": "pwem", "SCIPION_HOME": os.path.join(folder, "home"),
              "SCIPION_USER_DATA": os.path.join(folder, "user"), "SCIPION_PYTHON": sys.executable,
              "SCIPION_NOTIFY": "False", "SCIPION_TEST_NOSYNC": "True"}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    for name in ("SCIPION_HOME", "SCIPION_USER_DATA"):
        os.makedirs(os.environ[name], exist_ok=True)


def ensure_hosts():
    """Write the file that describes this host if there is none: without it a project cannot be made."""
    from pyworkflow import Config
    from pyworkflow.protocol import HostConfig
    if not os.path.exists(Config.SCIPION_HOSTS):
        os.makedirs(os.path.dirname(Config.SCIPION_HOSTS), exist_ok=True)
        HostConfig.writeBasic(Config.SCIPION_HOSTS)


def create_project(name):
    """A new project, with the working directory in it (paths in Scipion are relative to the project).

    A project of that name is replaced.
    """
    import pyworkflow
    from pyworkflow.project import Manager
    pyworkflow.Config.setDomain("pwem")
    ensure_hosts()
    pyworkflow.Config.getDomain().getProtocols()        # binds each protocol to its plugin; needed before any run
    manager = Manager()
    if manager.hasProject(name):
        manager.deleteProject(name)
    project = manager.createProject(name)
    os.chdir(project.path)
    return project


def new_protocol(project, class_name, label=None, **parameters):
    """A protocol that is not run yet. A value (protocol, output name) connects an input to an output.

    Raises RuntimeError if Scipion does not know the protocol.
    """
    import pyworkflow
    known = pyworkflow.Config.getDomain().getProtocols()
    if class_name not in known:
        raise RuntimeError("Scipion knows %d protocols and not %s: it said above which plugins it could not import and why; pwem itself needs a Python "
                           "with tkinter (Debian, Ubuntu: apt-get install python3-tk)" % (len(known), class_name))
    protocol = project.newProtocol(known[class_name])
    if label:
        protocol.setObjLabel(label)
    for name, value in parameters.items():
        if isinstance(value, tuple):
            getattr(protocol, name).set(value[0])
            getattr(protocol, name).setExtended(value[1])
        else:
            getattr(protocol, name).set(value)
    return protocol


def run_protocol(project, class_name, label=None, **parameters):
    """Run a protocol in a process of its own and wait; returns it with its outputs.

    Raises RuntimeError with the protocol's error and where its log is if it did not finish.
    """
    protocol = new_protocol(project, class_name, label, **parameters)
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        raise RuntimeError("%s ended as %s: %s (log: %s)" % (protocol, protocol.getStatus(), protocol.getErrorMessage(),
                                                            os.path.abspath(protocol.getStdoutLog())))
    return protocol
