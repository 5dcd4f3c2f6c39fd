#!/bin/sh
# Renders the charts into plain YAML: manifests/render.sh [folder]. Needs helm in PATH or as $HELM.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
helm=${HELM:-helm}
command -v "$helm" > /dev/null || { echo "no helm: put it in PATH or name it in HELM" >&2; exit 1; }
# Nobody's root: with it the loaders refuse everything, until it is replaced by a real one.
root=0000000000000000000000000000000000000000000000000000000000000000
render() {
    chart=$1
    shift
    echo "# Rendered from charts/$chart by manifests/render.sh; not edited by hand."
    "$helm" template "$chart" "$here/../charts/$chart" --namespace invivo-system --kube-version 1.34.0 "$@"
}
# What does not render leaves the old file as it was.
render invivo-crds > "$out/crds.yaml.new"
render invivo --set "trust.roots[0]=$root" > "$out/invivo.yaml.new"
mv "$out/crds.yaml.new" "$out/crds.yaml"
mv "$out/invivo.yaml.new" "$out/invivo.yaml"
