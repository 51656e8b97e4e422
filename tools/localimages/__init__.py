"""Images as archives, built here: Debian by debootstrap below, packaging/Dockerfile by buildah above; no registry."""
