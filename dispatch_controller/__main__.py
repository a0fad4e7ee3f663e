"""`python -m dispatch_controller` is `dispatch-controller`."""

from dispatch_controller.cli import main

if __name__ == "__main__":
    main()
