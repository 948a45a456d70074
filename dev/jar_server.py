"""Runs a server that is made of jars, which `make engines` gets."""

from typing import Final

from dev.child_processes import ProgramArguments
from dev.engine_jars import class_path, engine_folder
from dev.programs import find_program
from dev.servers import Server

_JVM: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class JarServer(Server):
    """A server of Java. `engine` is the folder of `dev/engines` that names its jars."""

    start_seconds = 120.0
    stop_seconds = 10.0
    programs = ("java",)

    @classmethod
    def require_installed(cls) -> None:
        super().require_installed()
        engine_folder(cls.engine)

    def _java(self, heap: str, *options: str) -> ProgramArguments:
        """Returns the beginning of a command: Java with the class path of this engine."""
        return [find_program("java"), f"-Xms{heap}", f"-Xmx{heap}", *_JVM, *options, "-cp", class_path(self.engine)]
