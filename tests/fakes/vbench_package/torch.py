"""As much of torch as vbench's bridge asks for itself."""

__version__ = "0"


class cuda:
    """No GPU."""

    @staticmethod
    def is_available() -> bool:
        """No."""
        return False


class hub:
    """No network."""

    @staticmethod
    def load_state_dict_from_url(url: str, **_options: object) -> None:
        """None."""
        raise OSError(url)


def device(name: str) -> str:
    """Itself."""
    return name
