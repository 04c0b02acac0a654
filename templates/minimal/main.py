"""What the image runs when no other command is given."""

import platform


def main() -> None:
    print(f"Hello from Python {platform.python_version()}")


if __name__ == "__main__":
    main()
