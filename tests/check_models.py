"""ONNX's own checker over model files, with full checks: operators' contracts, types and shapes.

    pip install -r tests/requirements.txt
    python tests/check_models.py MODEL.onnx...

Prints each file that passes; ends with 1 if one does not, having said why.
"""

import argparse
import sys

import onnx


def main():
    parser = argparse.ArgumentParser(description="Checks ONNX models in full.")
    parser.add_argument("models", nargs="+")
    failed = False
    for path in parser.parse_args().models:
        try:
            onnx.checker.check_model(path, full_check=True)
            print(path)
        except Exception as error:  # The checker's, shape inference's and protobuf's have no type in common.
            failed = True
            print(f"{path}: {error}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
