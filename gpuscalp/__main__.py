"""``python -m gpuscalp`` is the command ``gpuscalp``."""

from gpuscalp.cli import main

if __name__ == "__main__":
    main()
