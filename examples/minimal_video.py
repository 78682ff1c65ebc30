"""Masks and identities of a video in a few lines: python examples/minimal_video.py BUNDLE VIDEO"""
import sys

import stmask_deploy


def main(bundle: str, video: str) -> None:
    model = stmask_deploy.load(bundle)
    for result in model.track(video):
        print(f"frame {result.index} at {result.time_s:.2f} s: {len(result)} objects")
        rows = zip(result.ids, result.labels, result.scores, result.patches, strict=True)
        for identity, label, score, patch in rows:
            print(f"  {label} {identity}: score {score:.2f}, {patch.pixels.sum()} pixels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
