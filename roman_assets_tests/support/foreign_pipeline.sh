#!/bin/sh
# A pipeline of somebody else: it knows the manifest, the directory and the notification, no Python.
# $1 has a file and its metadata for each product, as another program would have made them.
set -eu
sha() { sha256sum "$1" | cut -d ' ' -f 1; }
inputs=$(grep -E '"(name|sha256)": ' "$ROMAN_ASSETS_SSC_MANIFEST" |
    sed -E 's/^ *//; s/,$//' | paste -d , - - | sed -E 's/^(.*)$/{\1}/' | paste -s -d , -)
separator=''
{
    printf '{"version": 1, "files": ['
    for metadata in "$1"/*.metadata; do
        file=${metadata%.metadata}
        name=$(basename "$file")
        cp "$file" "$ROMAN_ASSETS_SSC_DELIVERY/$name"
        printf '%s{"filename": "%s", "fileSize": %s, "sha256": "%s",' \
            "$separator" "$name" "$(stat -c %s "$file")" "$(sha "$file")"
        printf '"fileCreationTimestamp": "%s", "inputs": [%s],' "$(date -u +%FT%TZ)" "$inputs"
        printf '"softwareVersions": {"sh": "1"}, "metadata": %s}' "$(cat "$metadata")"
        separator=', '
    done
    printf ']}'
} >"$ROMAN_ASSETS_SSC_DELIVERY/notification.json"
