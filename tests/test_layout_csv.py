"""Tables of labels: which columns say what, which images they mean, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from layout_samples import build_csv, random_image, save_nifti, save_png, save_text

from monai_salm.formats import FormatError
from monai_salm.layouts import LayoutError, detect, open_layout
from monai_salm.layouts.csv_labels import Columns, CsvLabels
from monai_salm.learning.tasks import Classification, Segmentation
from monai_salm.shared.warn import DataWarning


def labels(root: Path) -> dict[str, object]:
    return {
        case["name"]: case["label"]
        if case["label"] is None or isinstance(case["label"], int)
        else case["label"].tolist()
        for case in detect(root).dataset()
    }


@pytest.mark.parametrize(
    "lines",
    [
        ["image,label", "images/a.png,0", "images/b.png,2"],
        ["Filename,Class", "a.png,0", "b.png,2"],
        ["id;note;diagnosis", "a;x,y;0", "b;;2"],
        ["image_id,patient,target,age", "a,p1,0.0,33", "b,p2,2.0,34"],
        [",file name,label", "0,a.png,0", "1,./images/b.png,2"],
        ["\ufeffimage,label", '"a.png","0"', ' "b.png" , 2 '.replace(' "b.png" ', "b.png"), "", ",,"[:1]],
    ],
)
def test_columns_are_found_by_their_names(tmp_path: Path, lines: list[str]) -> None:
    build_csv(tmp_path, lines)
    data = detect(tmp_path)
    assert isinstance(data, CsvLabels)
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 2}
    assert data.task() == Classification(num_classes=3)
    assert data.class_names == ()
    assert set(data.unlisted()) == {"images/c.png", "images/d.png"}


def test_text_classes_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,melanoma", "b,benign", "c,melanoma"])
    assert labels(tmp_path) == {"images/a.png": 1, "images/b.png": 0, "images/c.png": 1}
    assert detect(tmp_path).class_names == ("benign", "melanoma")


def test_columns_of_zeros_and_ones(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,age,effusion,mass,sex", "a,30,1,0,1", "b,31,1,1,0", "c,32,0,0,0"])
    assert labels(tmp_path) == {"images/a.png": [1, 0], "images/b.png": [1, 1], "images/c.png": [0, 0]}
    assert detect(tmp_path).task() == Classification(num_classes=2, multi_label=True)
    assert detect(tmp_path).class_names == ("effusion", "mass")


def test_one_hot_columns_are_class_numbers(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,MEL,NV,BCC", "a,1.0,0.0,0.0", "b,0,0,1", "c,0,1,0"])
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 2, "images/c.png": 1}
    assert detect(tmp_path).class_names == ("MEL", "NV", "BCC")


def test_a_single_column_of_zeros_and_ones(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,malignant", "a,1", "b,0"])
    assert labels(tmp_path) == {"images/a.png": 1, "images/b.png": 0}


def test_several_classes_in_one_cell(tmp_path: Path) -> None:
    build_csv(tmp_path, ["Image Index,Finding Labels", "a.png,Effusion|Mass", "b.png,Mass", "c.png,Clear"])
    assert labels(tmp_path) == {"images/a.png": [0, 1, 1], "images/b.png": [0, 0, 1], "images/c.png": [1, 0, 0]}
    assert detect(tmp_path).class_names == ("Clear", "Effusion", "Mass")


@pytest.mark.parametrize(
    "cells", [("['x', 'a, b']", "[]", "['x']"), ('["x" "a, b"]', "[]", "{'x'}"), ("{\"a, b\", 'x'}", "()", "('x',)")]
)
def test_lists_written_as_text_are_several_labels(tmp_path: Path, cells: tuple[str, ...]) -> None:
    rows = [f"{name};{cell}" for name, cell in zip("abc", cells, strict=True)]
    build_csv(tmp_path, ["image;labels", *rows, "d;['x']"])
    data = open_layout(tmp_path, "csv_labels")
    assert data.class_names == ("a, b", "x")
    assert data.task() == Classification(num_classes=2, multi_label=True)
    found = labels(tmp_path)
    assert [found[f"images/{name}.png"] for name in "abcd"] == [[1, 1], [0, 0], [0, 1], [0, 1]]


def test_lists_of_one_name_each_are_classes(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,['x']", "b,['y']", "c,['x']"])
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 1, "images/c.png": 0}
    assert detect(tmp_path).class_names == ("x", "y")


@pytest.mark.parametrize(
    "cells", [("[1, 0]", "[0, 1]"), ("['x']", "[y, z]"), ("['x', 'y']", "x"), ("[mass, nodule]", "mass")]
)
def test_lists_without_quotes_are_refused(tmp_path: Path, cells: tuple[str, str]) -> None:
    build_csv(tmp_path, ["image;label", *(f"{name};{cell}" for name, cell in zip("ab", cells, strict=True))])
    with pytest.raises(
        LayoutError, match=r"line [23], column 'label': .*no list of names in quotes.*join the names by \|"
    ):
        open_layout(tmp_path, "csv_labels")


def test_joined_labels_that_count_as_a_class_are_told(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,x;y", "b,x", "c,y"])
    with pytest.warns(
        DataWarning, match=r"line 2, column 'label': 'x;y' and 'x' count as two classes; .*join them by \|"
    ):
        assert detect(tmp_path).class_names == ("x", "x;y", "y")


@pytest.mark.parametrize("column", ["mask", "label"])
def test_label_maps_may_be_named(tmp_path: Path, column: str) -> None:
    for index in range(2):
        save_nifti(tmp_path / f"scans/{index}.nii.gz", random_image(index))
        save_nifti(tmp_path / f"masks/{index}.nii.gz", random_image(index, dtype="uint8", high=3))
    rows = [f"scans/{index}.nii.gz,masks/{index}.nii.gz" for index in range(2)]
    save_text(tmp_path / "list.csv", "\n".join([f"image,{column}", *rows]))
    data = detect(tmp_path)
    assert data.task() == Segmentation(num_classes=3)
    assert data.label_files() == ("masks/0.nii.gz", "masks/1.nii.gz")
    assert data.unlisted() == ()


def test_a_column_may_say_the_split(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label,split", "a,0,train", "b,1,Training", "c,0,valid", "d,1,TEST"])
    data = detect(tmp_path)
    assert {split: data.dataset(split).names for split in data.splits} == {
        "train": ("images/a.png", "images/b.png"),
        "val": ("images/c.png",),
        "test": ("images/d.png",),
    }
    assert data.image_files() == ("images/a.png", "images/b.png")


@pytest.mark.parametrize(
    "lines",
    [
        ["image,label,is_train", "a,mel,1", "b,nv,1", "c,mel,0", "d,nv,0"],
        ["image,label,Is-Test", "a,mel,False", "b,nv,False", "c,mel,True", "d,nv,True"],
        ["image,mel,nv,in test set", "a,1,0,no", "b,0,1,no", "c,1,0,yes", "d,0,1,yes"],
        ["image,mel,nv,train,val,test", "a,1,0,1,0,0", "b,0,1,1,0,0", "c,1,0,0,0,1", "d,0,1,0,0,1"],
        ["image,mel,nv,train", "a,1,0,1.0", "b,0,1,1.0", "c,1,0,0.0", "d,0,1,0.0"],
        ["image,label,is_val,is_test,test", "a,mel,0,0,PCR", "b,nv,0,0,", "c,mel,0,1,PCR", "d,nv,0,1,PCR"],
    ],
)
def test_columns_of_yes_and_no_may_say_the_split(tmp_path: Path, lines: list[str]) -> None:
    build_csv(tmp_path, lines)
    data = detect(tmp_path)
    assert data.class_names == ("mel", "nv")
    names = {split: data.dataset(split).names for split in data.splits}
    assert names == {"train": ("images/a.png", "images/b.png"), "test": ("images/c.png", "images/d.png")}


def test_a_yes_for_validation_leaves_the_others_for_training(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label,is_valid", "a,x,0", "b,y,0", "c,x,0", "d,y,1"])
    assert detect(tmp_path).dataset("val").names == ("images/d.png",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,mel,nv,is_train", "a,1,0,1", "b,0,1,maybe"], r"line 3, column 'is_train': 'maybe' is neither.*write 1 or 0"),
        (["image,mel,nv,is_train", "a,1,0,1", "b,0,1,"], r"line 3, column 'is_train': '' is neither.*write 1 or 0"),
        (["image,mel,nv,train,test", "a,1,0,1,0", "b,0,1,1,1"], "line 3: write 1 in exactly one of train, test"),
        (["image,mel,nv,train,val,test", "a,1,0,1,0,0", "b,0,1,0,0,0"], "line 3: write 1 in exactly one of"),
        (["image,mel,nv,test", "a,1,0,1", "b,0,1,0"], "'test' of yes and no may say the split.*Call it 'is_test'"),
        (["image,mel,nv,is_valid", "a,1,0,1", "b,0,1,1"], "'is_valid' says yes for most images.*Call it 'is_val'"),
    ],
)  # fmt: skip
def test_columns_that_do_not_say_the_split_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    build_csv(tmp_path, lines)
    with pytest.raises(LayoutError, match=message):
        open_layout(tmp_path, "csv_labels")


def test_a_column_that_was_asked_for_is_no_split(tmp_path: Path) -> None:
    table = build_csv(tmp_path, ["image,test", "a,1", "b,0"])
    assert CsvLabels([table], Columns(labels=("test",))).splits == ("train",)
    assert CsvLabels([table], Columns(labels=("image",), split="test")).splits == ("train", "test")


def test_folds_are_all_training(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label,fold", "a,0,0", "b,1,1"])
    assert detect(tmp_path).splits == ("train",)


def test_several_tables_named_for_splits_share_their_classes(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,x", "b,z"], "train.csv")
    save_text(tmp_path / "val_labels.csv", "image,label\nc,y\n")
    save_text(tmp_path / "test.csv", "image\nd\n")
    save_text(tmp_path / "sample_submission.csv", "image,label\nd,x\n")
    data = detect(tmp_path)
    assert data.class_names == ("x", "y", "z")
    assert [case["label"] for case in data.dataset("val")] == [1]
    assert [case["label"] for case in data.dataset("test")] == [None]
    assert data.unlisted() == ("sample_submission.csv",)
    assert data.reopen(tmp_path).splits == ("train", "val", "test")


def test_the_path_of_the_table_may_be_given(tmp_path: Path) -> None:
    first = build_csv(tmp_path, ["image,label", "a,0", "b,1"], "one.csv")
    save_text(tmp_path / "two.csv", "image,label\nc,0\nd,3\n")
    with pytest.raises(LayoutError, match=r"several tables of images, one\.csv, two\.csv; give the path"):
        detect(tmp_path)
    data = detect(first)
    assert (data.root, data.dataset().names) == (tmp_path, ("images/a.png", "images/b.png"))


def test_columns_may_be_chosen(tmp_path: Path) -> None:
    path = build_csv(tmp_path, ["id,path,label,mass,cyst,when", "1,a,9,0,1,train", "2,b,9,1,1,test"])
    data = CsvLabels([path], Columns(image="path", labels=("cyst", "mass"), split="when"))
    assert data.dataset()[0]["label"].tolist() == [1, 0]
    assert data.splits == ("train", "test")
    assert data.reopen(tmp_path).dataset()[0]["label"].tolist() == [1, 0]
    with pytest.raises(LayoutError, match=r"labels\.csv has no column 'nope'; its columns are id, path"):
        CsvLabels([path], Columns(image="nope"))
    with pytest.raises(LayoutError, match="has no column 'nope'"):
        CsvLabels([path], Columns(image="path", labels=("nope",)))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["image,label"], "no rows"),
        (["image,label", ",0"], "line 2, column 'image'.*must be text"),
        (["image,label", "a,0", "b,1", "images/a.png,1"], r"line 4: images/a\.png is in labels\.csv, line 2, already"),
        (["image,label", "a,-1", "b,0"], "line 2, column 'label': '-1' is no class"),
        (["image,label", "a,0.37", "b,0"], "line 2, column 'label': '0.37' is no class"),
        (["image,label", "a,1e300", "b,0"], "line 2, column 'label': '1e300' is no class"),
        (["image,label,split", "a,0,training", "b,0,maybe"], "line 3, column 'split': 'maybe' is no split"),
        (["image,label,split", "a,0,test"], "no training images; its rows are for test"),
        (["image,label", "a,0,5"], "line 2: 3 columns, the header has 2"),
        (["image,label,label", "a,0,5"], "two columns are named 'label'"),
        (["image,colour", "a,red", "b,green"], "no column of labels"),
        (["name of it,label", "a,0"], "no column of image names"),
        (["image,label", "images,0"], "images is a folder; name a file"),
        (["image,label", "twice,0"], "'twice' fits 2 images"),
        (["image,label", "'" + "a" * 200_000 + ",0"], "not a valid table"),
        (["image,label", "a" * 100_000 + ",0"], "a path of 100000 characters"),
        (["image,label", "a" * 3000 + ",0"], "is too long for a file"),
        (["image,label", "a\0b,0"], "zero bytes"),
        (["image,x,y1", "a,0,1", "b,1,7"], None),
    ],
)
def test_refuses_with_line_and_column(tmp_path: Path, lines: list[str], reason: str | None) -> None:
    path = build_csv(tmp_path, lines)
    for folder in ("one", "two"):
        save_png(tmp_path / folder / "twice.png")
    if reason is None:  # y1 is not all zeros and ones, so it is no label
        assert open_layout(path, "csv_labels").class_names == ()
        return
    with pytest.raises(LayoutError, match=reason) as caught:
        open_layout(path, "csv_labels")
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zzz", r"case 'zzz': .*line 2, column 'image': no image 'zzz' in .*remove the line"),
        ("images/zzz.png", "no image 'images/zzz.png'"),
        ("notes.txt", "not a format this version reads"),
        ("photo.jpg", "no picture"),
    ],
)
def test_a_line_without_a_usable_image_keeps_its_place(tmp_path: Path, text: str, reason: str) -> None:
    build_csv(tmp_path, ["image,label", f"{text},1", "a,0", "b,1"])
    save_text(tmp_path / "notes.txt", "x")
    save_text(tmp_path / "photo.jpg", "x")
    data = detect(tmp_path)
    assert (
        data.dataset().names
        == tuple(unit.name for unit in data.stored_images())
        == (text, "images/a.png", "images/b.png")
    )
    assert data.stored_images()[0].files == (text,)
    with pytest.raises(FormatError, match=reason):
        data.dataset()[0]
    assert [data.dataset()[index]["label"] for index in (1, 2)] == [0, 1]
    assert data.task() == Classification(num_classes=2)


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        (["image,label", "a,0", "b,1", "c,"], "label"),
        (["image,label,split", "a,0,train", "b,1,train", "c,n/a,train", "d,,test"], "label"),
        (["image,diagnosis", "a,ill", "b,well", "c,NaN"], "diagnosis"),
        (["image,p,q", "a,0,1", "b,1,0", "c,,"], "p"),
        (["image,age,p,q", "a,33,0,1", "b,,1,1", "c,34,,"], "p"),
    ],
)
def test_a_training_line_without_a_label_keeps_its_place(tmp_path: Path, lines: list[str], column: str) -> None:
    """It cannot be used, so that its image is not published; a test image needs no label."""
    build_csv(tmp_path, lines)
    data = detect(tmp_path)
    assert isinstance(data.task(), Classification)
    assert [case["label"] is not None for case in data.dataset()[:2]] == [True, True]
    with pytest.raises(FormatError, match=rf"case 'images/c.png': .*line 4, column '{column}': the label is missing"):
        data.dataset()[2]
    assert data.has_labels("train")
    assert "images/c.png" in data.image_files()
    if "test" in data.splits:
        assert data.dataset("test")[0]["label"] is None


def test_a_table_without_any_label_says_so(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,", "b,n/a"])
    with pytest.raises(LayoutError, match=r"images/a\.png has no label \(and 1 more: images/b\.png\)"):
        detect(tmp_path).task()


def test_a_missing_label_map_is_an_error_of_its_case(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,mask", "a,images/c.png", "b,gone.png"])
    data = detect(tmp_path)
    assert data.task() == Segmentation(num_classes=int(data.dataset()[0]["label"].max()) + 1)
    assert data.dataset()[0]["label"].shape == (1, 8, 7)
    with pytest.raises(FormatError, match=r"case 'images/b\.png': its label map is missing: .*gone\.png"):
        data.dataset()[1]


def test_a_column_of_names_is_no_class(tmp_path: Path) -> None:
    images = [f"i{index}" for index in range(30)]
    build_csv(tmp_path, ["image,diagnosis", *(f"{image},text {image}" for image in images)], images=images)
    with pytest.raises(LayoutError, match="30 different texts for 30 images, too many for classes"):
        detect(tmp_path)


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "/etc/passwd", "C:/s.png", "..\\secret.png", "link.png"]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "data"
    table = build_csv(root, ["image,label", "a,0", f"{path},1"])
    save_png(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "link.png")
    with pytest.raises(LayoutError, match=r"inside|leads out"):
        open_layout(table, "csv_labels")


def test_not_text_is_refused(tmp_path: Path) -> None:
    table = build_csv(tmp_path, ["image,label", "a,0"])
    table.write_bytes(b"image,label\na,\x81\xfe\n")  # no letter in any encoding that tables are in
    with pytest.raises(LayoutError, match="not UTF-8"):
        open_layout(table, "csv_labels")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_tables_in_the_encodings_of_spreadsheet_programs(tmp_path: Path, encoding: str, ends: str) -> None:
    table = build_csv(tmp_path, [])
    text = ends.join(["image;label", "a.png;böse", "b.png;gut", ""])
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    table.write_bytes((mark + text).encode(encoding))
    data = detect(tmp_path)
    assert data.class_names == ("böse", "gut")
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 1}


@pytest.mark.parametrize(
    "cell",
    ["a.jpg", "images/a.jpeg", "A.PNG", "Images/A", "Set-v1.0/images/a.png", "Set-v1.0/images/a.jpg", "a.nii.gz"],
)
def test_an_image_is_found_by_another_suffix_case_or_prefix(tmp_path: Path, cell: str) -> None:
    build_csv(tmp_path, ["image,label", f"{cell},0", "b.png,1"])
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 1}


def test_an_image_is_found_in_another_unicode_form(tmp_path: Path) -> None:
    save_png(tmp_path / "images" / "a\u0308.png", 7)  # as macOS writes an umlaut
    build_csv(tmp_path, ["image,label", "\u00e4.png,0", "b.png,1"])
    assert set(labels(tmp_path)) == {"images/a\u0308.png", "images/b.png"}


def test_an_image_that_is_left_out_of_a_copy_is_not_mistaken_for_another(tmp_path: Path) -> None:
    save_png(tmp_path / "images" / "a.tiff")
    build_csv(tmp_path, ["image,label", "images/a.tiff,0", "images/a.png,1"], images=("b",))
    data = detect(tmp_path)
    assert data.dataset().names == ("images/a.tiff", "images/a.png")
    with pytest.raises(FormatError, match=r"no image 'images/a\.png'"):
        data.dataset()[1]


def test_a_name_that_fits_images_of_two_suffixes_is_refused(tmp_path: Path) -> None:
    for name in ("x.png", "x.tif"):
        save_png(tmp_path / "images" / name)
    build_csv(tmp_path, ["image,label", "x.jpg,0", "b.png,1"])
    with pytest.raises(LayoutError, match=r"'x\.jpg' fits 2 images"):
        open_layout(tmp_path, "csv_labels")


def test_equal_lines_count_once(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label,x", "a,0,1", "b,1,2", "a.png,0,3"])
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 1}


def test_empty_and_uncertain_cells_of_several_labels_count_as_0(tmp_path: Path) -> None:
    """As in the tables of large chest X-ray sets, where most cells are empty; the labels stay several."""
    build_csv(tmp_path, ["Path,Sex,No Finding,Edema", "a,Male,1.0,", "b,Female,,1.0", "c,Male,,-1.0", "d,Male,0.0,1.0"])
    assert labels(tmp_path) == {
        "images/a.png": [1, 0],
        "images/b.png": [0, 1],
        "images/c.png": [0, 0],
        "images/d.png": [0, 1],
    }
    assert detect(tmp_path).task() == Classification(num_classes=2, multi_label=True)


def test_tables_without_images_are_not_recognised(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "gone,0"])
    save_text(tmp_path / "other.csv", "a,b\n1,2\n")
    with pytest.raises(LayoutError, match="no layout"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["image,x,y"], "x and y say places or sizes in the image"),
        (["image,left,top,width,height"], "left and top and width and height say places"),
        (["image,label"], r"line 2, column 'label'.*6 different numbers \(12, 15, 18, \.\.\.\) for 6 images"),
    ],
)
def test_coordinates_are_no_classes(tmp_path: Path, lines: list[str], reason: str) -> None:
    cells = [",".join(str(place + 12 + 3 * row) for place in range(lines[0].count(","))) for row in range(6)]
    lines += [f"i{row},{cell}" for row, cell in enumerate(cells)]
    table = build_csv(tmp_path, lines, images=[f"i{row}" for row in range(6)])
    with pytest.raises(LayoutError, match=reason) as caught:
        open_layout(table, "csv_labels")
    assert "labels.csv" in str(caught.value)
    assert "'label'" in str(caught.value)


@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4, 5], [10, 10, 10, 20, 20, 20], [3, 90, 3, 90, 3, 90]])
def test_true_class_numbers_are_classes(tmp_path: Path, classes: list[int]) -> None:
    images = [f"i{row}" for row in range(6)]
    build_csv(tmp_path, ["image,label", *(f"i{row},{number}" for row, number in enumerate(classes))], images=images)
    assert [case["label"] for case in detect(tmp_path).dataset()] == classes


@pytest.mark.parametrize("name", ["none", "None"])
def test_a_class_may_be_called_none(tmp_path: Path, name: str) -> None:
    build_csv(tmp_path, ["image,finding", f"a,{name}", "b,cyst", f"c,{name}", "d,"])
    data = detect(tmp_path)
    assert data.class_names == tuple(sorted([name, "cyst"]))
    assert [data.dataset()[index]["label"] for index in range(3)] == [
        data.class_names.index(n) for n in (name, "cyst", name)
    ]
    build_csv(tmp_path, ["image,finding", f"a,{name}", "b,1", "c,0", "d,1"])
    with pytest.raises(FormatError, match=r"labels\.csv, line 2, column 'finding': the label is missing.*fill it in"):
        detect(tmp_path).dataset()[0]


def test_a_single_class_is_named_with_its_column(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,finding", "a,cyst", "b,", "c,cyst"])
    with pytest.raises(LayoutError, match=r"labels\.csv, line 2, column 'finding'.*one class, 'cyst'.*write its name"):
        detect(tmp_path)


@pytest.mark.parametrize(("first", "sign"), [("sep=;", ";"), ('"sep=,"', ","), ("SEP=|", "|"), ("sep=\t", "\t")])
def test_the_line_that_tells_excel_the_delimiter_is_no_header(tmp_path: Path, first: str, sign: str) -> None:
    table = build_csv(tmp_path, [])
    lines = [first, *(sign.join(line) for line in (("image", "label"), ("a.png", "0"), ("b.png", "1")))]
    table.write_bytes("\r\n".join(lines).encode())
    assert labels(tmp_path) == {"images/a.png": 0, "images/b.png": 1}
    table.write_bytes("\r\n".join([*lines, "c.png"]).encode())
    with pytest.raises(LayoutError, match=r"labels\.csv, line 5: 1 columns"):
        open_layout(table, "csv_labels")


def test_classes_that_differ_in_case_are_told(tmp_path: Path) -> None:
    build_csv(tmp_path, ["image,label", "a,Benign", "b,benign", "c,malignant"])
    with pytest.warns(DataWarning, match=r"column 'label': 'Benign' and 'benign' count as 2 classes"):
        assert detect(tmp_path).class_names == ("Benign", "benign", "malignant")
