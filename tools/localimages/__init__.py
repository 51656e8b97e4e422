"""Images as archives, built without a registry: Debian by debootstrap, and packaging/Dockerfile on it by buildah."""
