"""tools/asc-table makes the table of additional sense codes from a published list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "asc-table"
LIST = """
 * The following should match asc-num.txt dated 20300131 */
const struct sg_lib_asc_ascq_range_t sg_lib_asc_ascq_range[] =
{
    {0x40,0x01,0x7f,"Ram failure [0x%x]"},
    {0, 0, 0, NULL}
};
const struct sg_lib_asc_ascq_t sg_lib_asc_ascq[] =
{
    {0x24,0x00,"Invalid field in cdb"},
    {0x23,0x03,"invalid token operation, remote rod token creation not "
               "supported"},
    {0, 0, NULL}
};
"""


def make(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "list.c"
    path.write_text(source, encoding="utf-8")
    return subprocess.run([sys.executable, str(TOOL), str(path)], capture_output=True, text=True, check=False)


def test_the_table_has_each_row_and_range_and_the_date_of_the_list(tmp_path: Path) -> None:
    made = make(LIST, tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    names: dict[str, object] = {}
    exec(made.stdout, names)
    assert "2030-01-31" in str(names["__doc__"])
    assert names["ADDITIONAL_SENSE"] == {
        (0x23, 0x03): "Invalid token operation, remote ROD token creation not supported",
        (0x24, 0x00): "Invalid field in CDB",
    }
    assert names["ADDITIONAL_SENSE_RANGES"] == ((0x40, 0x01, 0x7F, "RAM failure {:02X}h"),)


def test_a_file_that_is_no_such_list_is_refused(tmp_path: Path) -> None:
    made = make("int main(void) { return 0; }\n", tmp_path)
    assert (made.returncode, made.stdout) == (1, "")
    assert "no date, no table" in made.stderr
