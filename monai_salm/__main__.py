"""``python -m monai_salm`` is ``monai-salm``."""

from monai_salm.cli import main

if __name__ == "__main__":
    main()
