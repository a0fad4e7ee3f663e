"""The controller as a service of the machine: launchd on macOS, systemd on Linux."""
