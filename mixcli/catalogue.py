"""catalogue.py: data sets and nets by the names they are typed with, and what each is."""

from __future__ import annotations

MEDMNIST = {  # 28x28, MedMNIST v2: training and test images, classes, channels, what they are
    "pathmnist": (89_996, 7_180, 9, 3, "colon tissue"),
    "dermamnist": (7_007, 2_005, 7, 3, "skin lesions"),
    "octmnist": (97_477, 1_000, 4, 1, "retinal OCT"),
    "pneumoniamnist": (4_708, 624, 2, 1, "chest X-rays"),
    "retinamnist": (1_080, 400, 5, 3, "fundus photographs"),
    "breastmnist": (546, 156, 2, 1, "breast ultrasound"),
    "bloodmnist": (11_959, 3_421, 8, 3, "blood cells"),
    "tissuemnist": (165_466, 47_280, 8, 1, "kidney cells"),
    "organamnist": (34_561, 17_778, 11, 1, "abdominal CT, axial"),
    "organcmnist": (12_975, 8_216, 11, 1, "abdominal CT, coronal"),
    "organsmnist": (13_932, 8_827, 11, 1, "abdominal CT, sagittal"),
}
DATASETS = {
    "digits": "8x8 handwritten digits, 10 classes, inside scikit-learn: nothing to download",
    "cifar10": "32x32 colour images, 10 classes; cifar-10-batches-py/",
    "cifar100": "32x32 colour images, 100 fine classes; cifar-100-python/",
    "svhn": "32x32 colour house numbers, 10 classes; train_32x32.mat and test_32x32.mat in svhn/",
    "tiny-imagenet": "64x64 colour images, 200 classes; tiny-imagenet-200/; 4 GB of memory",
    "mini-imagenet": "84 px, 100 classes of 600, a fifth of each as the test; mini-imagenet/CLASS/",
    "food-101": "224 px, 101 dishes, official split; food-101/; 43 GB of memory at 224 px, see --resize",
    "oxford-iiit-pet": "224 px, 37 breeds, trainval and test; oxford-iiit-pet/images/ and annotations/; 3 GB of memory",
    "caltech-256": "224 px, 257 classes, 60 and 20 images of each; 256_ObjectCategories/; 9 GB of memory",
    "eurosat": "64x64 satellite images, 10 land uses, a fifth of each as the test; eurosat/2750/",
    **{name: f"28x28 {'colour' if channels == 3 else 'grey'} images, {classes} classes: {what} (MedMNIST)"
       for name, (_, _, classes, channels, what) in MEDMNIST.items()},
}  # fmt: skip

NETS = {
    "small": ("mixcli.nets.small", "residual net for 8x8 to 32x32 images on a CPU"),
    "resnet18": ("mixcli.nets.resnet", "ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling)"),
    "resnet34": ("mixcli.nets.resnet", "ResNet-34 with the CIFAR stem"),
    "resnet50": ("mixcli.nets.resnet", "ResNet-50 with the CIFAR stem"),
    "resnet101": ("mixcli.nets.resnet", "ResNet-101 with the CIFAR stem"),
    "resnext50": ("mixcli.nets.resnet", "ResNeXt-50 32x4d with the CIFAR stem"),
    "preact-resnet18": ("mixcli.nets.resnet", "PreAct-ResNet-18 with the CIFAR stem"),
    "wrn-28-2": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, twice as wide"),
    "wrn-28-8": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, eight times as wide"),
    "wrn-28-10": ("mixcli.nets.wide_resnet", "Wide ResNet of depth 28, ten times as wide"),
    "cnn-13": ("mixcli.nets.cnn13", "13-layer convolutional net of the semi-supervised literature"),
    "vit-tiny": ("mixcli.nets.vit", "vision transformer on 4x4 patches, width 192, 12 blocks; sides that 4 divides"),
}

# Nets of other libraries by the names they are typed with, and where they are cut. Of timm these are the ones held to
# equal their originals bit for bit; any other classifier of its catalogue may be typed too.
TORCHVISION = {
    "resnet18": "ResNet-18 for ImageNet: stem, layer1 … layer4",
    "resnet34": "ResNet-34 for ImageNet: stem, layer1 … layer4",
    "resnet50": "ResNet-50 for ImageNet: stem, layer1 … layer4",
    "resnet101": "ResNet-101 for ImageNet: stem, layer1 … layer4",
    "mobilenet_v3_large": "MobileNetV3-Large: stem, block1 … block15",
    "swin_t": "Swin-T: stem, stage1 … stage4",
    "convnext_tiny": "ConvNeXt-T: stem, stage1 … stage4",
    "vit_b_16": "ViT-B/16, for square images whose side 16 divides: stem, block1 … block12",
}
TIMM = {
    "resnet18": "stem, layer1 … layer4",
    "resnet26d": "stem, layer1 … layer4",
    "resnext50_32x4d": "stem, layer1 … layer4",
    "seresnet50": "stem, layer1 … layer4",
    "res2net50_26w_4s": "stem, layer1 … layer4",
    "resnest14d": "stem, layer1 … layer4",
    "skresnet18": "stem, layer1 … layer4",
    "ese_vovnet19b_dw": "stem, stage1 … stage4",
    "densenet121": "stem, stage1 … stage4",
    "regnetx_002": "stem, s1 … s4",
    "regnety_002": "stem, s1 … s4",
    "repvgg_a0": "stem, stage1 … stage3, final_conv",
    "gernet_s": "stem, stage1 … stage3, final_conv",
    "cspresnet50": "stem, stage1 … stage4",
    "hgnetv2_b0": "stem, stage1 … stage4",
    "mobilenetv2_050": "stem, block1 … block3, block5, block7",
    "mobilenetv3_small_050": "stem, block1, block2, block4, block6",
    "efficientnet_b0": "stem, block1 … block3, block5, block7",
    "efficientnet_lite0": "stem, block1 … block3, block5, block7",
    "mnasnet_small": "stem, block1 … block3, block5, block7",
    "lcnet_050": "stem, block1 … block3, block5, block6",
    "tinynet_e": "stem, block1 … block3, block5, block7",
    "hardcorenas_a": "stem, block1 … block3, block5, block7",
    "rexnet_100": "stem, stage1 … stage5",
    "starnet_s1": "stem, stage1 … stage4",
    "fasternet_t0": "stem, stage1 … stage4",
    "mobileone_s0": "stem, stage1 … stage3, final_conv",
    "fastvit_t8": "stem, stage1 … stage4",
    "convnext_atto": "stem, stage1 … stage4",
    "convnextv2_atto": "stem, stage1 … stage4",
    "inception_next_atto": "stem, stage1 … stage4",
    "edgenext_xx_small": "stem, stage1 … stage4",
    "mobilevit_xxs": "stem, stage1 … stage4, final_conv",
    "mambaout_femto": "stem, stage1 … stage4",
    "poolformer_s12": "stem, stage1 … stage4",
    "focalnet_tiny_srf": "stem, stage1 … stage4",
    "tiny_vit_5m_224": "stem, stage1 … stage4",
    "coatnet_0_224": "stem, stage1 … stage4",
    "swin_tiny_patch4_window7_224": "stem, stage1 … stage4",
    "swinv2_tiny_window8_256": "stem, stage1 … stage4",
    "vit_tiny_patch16_224": "stem, block1 … block12",
    "deit_tiny_patch16_224": "stem, block1 … block12",
    "eva02_tiny_patch14_224": "stem, block1 … block12",
    "cait_xxs24_224": "stem, block1 … block24",
    "visformer_tiny": "stem, stage1 … stage3",
    "mixer_s32_224": "stem, block1 … block8",
    "resmlp_12_224": "stem, block1 … block12",
    "gmlp_ti16_224": "stem, block1 … block30",
}
LIBRARIES = ("torchvision", "timm")
BORROWED = {f"torchvision:{name}": summary for name, summary in TORCHVISION.items()} | {
    f"timm:{name}": summary for name, summary in TIMM.items()
}
