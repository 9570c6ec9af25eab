"""Every network by name, as plain data: what it is, and how `models.build` makes it."""

from typing import NamedTuple

RESNET = "He et al. 2016, arXiv:1512.03385"
WRN = "Zagoruyko and Komodakis 2016, arXiv:1605.07146"
VGG = "Simonyan and Zisserman 2015, arXiv:1409.1556"
MOBILENET = "Sandler et al. 2018, arXiv:1801.04381"
SHUFFLE = "Zhang et al. 2018, arXiv:1707.01083"
SHUFFLE2 = "Ma et al. 2018, arXiv:1807.11164"


class Row(NamedTuple):
    """One network of the table."""

    family: str
    summary: str  # one line
    parameters: int  # at 100 classes
    lr: float  # published for CIFAR at batch 64; ours for the tiny family
    constructor: str  # "module:Class", the module in kdcli.models
    arguments: dict[str, object]  # of the class, beside the number of classes
    paper: str  # of the architecture


def _resnet(depth: int, parameters: int, factor: int = 1) -> Row:
    # The x4 networks quadruple the stages but only double the stem.
    widths = (16 if factor == 1 else 32, 16 * factor, 32 * factor, 64 * factor)
    shape = "-".join(map(str, widths[1:]))
    blocks = "1 basic block" if depth < 12 else f"{depth // 6} basic blocks"
    summary = f"3 stages of {blocks}, {shape} wide"
    arguments = {"depth": depth, "widths": widths}
    return Row("resnet", summary, parameters, 0.05, "resnet:ResNet", arguments, RESNET)


def _wrn(depth: int, width: int, parameters: int) -> Row:
    shape = "-".join(str(base * width) for base in (16, 32, 64))
    summary = f"3 groups of {depth // 6} pre-activation blocks, {shape} wide"
    arguments = {"depth": depth, "width": width}
    return Row("wrn", summary, parameters, 0.05, "wrn:WideResNet", arguments, WRN)


def _vgg(parameters: int, *convolutions: int) -> Row:
    summary = f"{sum(convolutions)} convolutions with batch norm, 64 to 512 wide"
    arguments = {"convolutions": convolutions}
    return Row("vgg", summary, parameters, 0.05, "vgg:VGG", arguments, VGG)


def _four_stages(parameters: int, bottleneck: bool, *blocks: int) -> Row:
    kind, widest = ("bottlenecks", 2048) if bottleneck else ("basic blocks", 512)
    summary = f"4 stages of {'-'.join(map(str, blocks))} {kind}, up to {widest} wide, 3x3 stem"
    arguments = {"blocks": blocks, "bottleneck": bottleneck}
    constructor = "resnet_four_stages:ResNet"
    return Row("ResNet", summary, parameters, 0.05, constructor, arguments, RESNET)


def _tiny(parameters: int, *widths: int) -> Row:
    summary = f"6 plain convolutions, {'-'.join(map(str, widths))} wide, for quick trials on a CPU"
    return Row("tiny", summary, parameters, 0.1, "tiny:Tiny", {"widths": widths}, "none: our own")


TABLE: dict[str, Row] = {
    "resnet8": _resnet(8, 83_892),
    "resnet14": _resnet(14, 181_108),
    "resnet20": _resnet(20, 278_324),
    "resnet32": _resnet(32, 472_756),
    "resnet44": _resnet(44, 667_188),
    "resnet56": _resnet(56, 861_620),
    "resnet110": _resnet(110, 1_736_564),
    "resnet8x4": _resnet(8, 1_233_540, factor=4),
    "resnet32x4": _resnet(32, 7_433_860, factor=4),
    "ResNet18": _four_stages(11_220_132, False, 2, 2, 2, 2),
    "ResNet34": _four_stages(21_328_292, False, 3, 4, 6, 3),
    "ResNet50": _four_stages(23_705_252, True, 3, 4, 6, 3),
    "wrn_16_1": _wrn(16, 1, 180_916),
    "wrn_16_2": _wrn(16, 2, 703_284),
    "wrn_16_4": _wrn(16, 4, 2_772_020),
    "wrn_16_8": _wrn(16, 8, 11_007_540),
    "wrn_22_1": _wrn(22, 1, 278_132),
    "wrn_22_2": _wrn(22, 2, 1_091_252),
    "wrn_22_4": _wrn(22, 4, 4_322_100),
    "wrn_22_8": _wrn(22, 8, 17_204_276),
    "wrn_28_1": _wrn(28, 1, 375_348),
    "wrn_28_2": _wrn(28, 2, 1_479_220),
    "wrn_28_4": _wrn(28, 4, 5_872_180),
    "wrn_28_10": _wrn(28, 10, 36_536_884),
    "wrn_40_1": _wrn(40, 1, 569_780),
    "wrn_40_2": _wrn(40, 2, 2_255_156),
    "wrn_40_4": _wrn(40, 4, 8_972_340),
    "wrn_40_8": _wrn(40, 8, 35_794_484),
    "vgg8": _vgg(3_965_028, 1, 1, 1, 1, 1),
    "vgg11": _vgg(9_277_284, 1, 1, 2, 2, 2),
    "vgg13": _vgg(9_462_180, 2, 2, 2, 2, 2),
    "vgg16": _vgg(14_774_436, 2, 2, 3, 3, 3),
    "vgg19": _vgg(20_086_692, 2, 2, 4, 4, 4),
    "MobileNetV2": Row(
        "MobileNetV2",
        "inverted residuals at half width, expansion 6",
        812_836,
        0.01,
        "mobilenetv2:MobileNetV2",
        {"expansion": 6, "width": 0.5},
        MOBILENET,
    ),
    "ShuffleV1": Row(
        "ShuffleV1",
        "grouped 1x1 convolutions with channel shuffle, 240-480-960 wide",
        949_258,
        0.01,
        "shufflenetv1:ShuffleV1",
        {},
        SHUFFLE,
    ),
    "ShuffleV2": Row(
        "ShuffleV2",
        "split channels with shuffle, 116-232-464 wide",
        1_355_528,
        0.01,
        "shufflenetv2:ShuffleV2",
        {},
        SHUFFLE2,
    ),
    "tiny8": _tiny(21_596, 8, 16, 32),
    "tiny16": _tiny(165_140, 16, 48, 96),
}
