//! The table as data.

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) layer: String,
    pub(crate) expected: String,
    pub(crate) code: String,
}

/// All rows.
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Reads the table that stands beside this test.
    pub(crate) fn read() -> Table {
        let mut lines = include_str!("../bad_inputs.tsv").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.next(), Some("id\tlayer\tinput\texpected\tsource\tcode\tkind"));
        let rows = lines.map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [id, layer, _, expected, _, code, _] => {
                Row { id: id.into(), layer: layer.into(), expected: expected.into(), code: code.into() }
            }
            _ => panic!("not seven columns: {line}"),
        });
        let rows: Vec<_> = rows.collect();
        for (index, row) in rows.iter().enumerate() {
            assert!(!rows[..index].iter().any(|other| other.id == row.id), "{} stands twice", row.id);
        }
        Table(rows)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ids(&self, wanted: impl Fn(&Row) -> bool) -> Vec<String> {
        self.0.iter().filter(|row| wanted(row)).map(|row| row.id.clone()).collect()
    }

    pub(crate) fn row(&self, id: &str) -> &Row {
        self.0.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("no row {id}"))
    }
}
