//! What Redis forbids scripts: to change a library or a global variable, and to read a global
//! variable that does not exist, which is mostly a spelling mistake.
//!
//! ```text
//! x = 1                       Attempt to modify a readonly table
//! string.trim = function…     the same
//! return y                    Script attempted to access nonexistent global variable 'y'
//! ```
//!
//! So nothing of a script is left for the next one. All tables that the globals lead to are readonly. That is
//! a flag of a table, which no script can change, and `rawset` respects it too.
//!
//! **How Redis does it**: its Lua has the same flag, a patch of its own (`lua_enablereadonlytable`).

use super::{Call, Outcome};
use crate::script::machine::Machine;
use crate::script::number;
use crate::script::value::{Error, TableId, Value};

impl Machine {
    /// Makes the globals, and all tables that they lead to, readonly.
    pub fn protect(&mut self) {
        let meta = self.heap.add_table();
        let native = self.heap.native(missing_global);
        self.set_field(meta, "__index", native);
        self.heap.tables[self.globals].meta = Some(meta);
        self.make_readonly(self.globals);
        if let Some(meta) = self.heap.string_meta {
            self.make_readonly(meta);
        }
    }

    fn make_readonly(&mut self, table: TableId) {
        if std::mem::replace(&mut self.heap.tables[table].readonly, true) {
            return;
        }
        let meta = self.heap.tables[table].meta.map(Value::Table);
        let (array, pairs) = self.heap.tables[table].parts();
        let inner: Vec<Value> =
            array.iter().copied().chain(pairs.map(|(_, value)| value)).chain(meta).collect();
        for value in inner {
            if let Value::Table(table) = value {
                self.make_readonly(table);
            }
        }
    }
}

fn missing_global(call: &mut Call) -> Result<Outcome, Error> {
    if call.count != 2 {
        return Err(call.error("Wrong number of arguments to luaProtectedTableError"));
    }
    if !call.arg(2).is_text() {
        let text = "Second argument to luaProtectedTableError must be a string or number";
        return Err(call.error(text));
    }
    let name = call.string(2)?;
    let name = number::c_string(call.bytes(name));
    let text = b"Script attempted to access nonexistent global variable '";
    Err(call.error([&text[..], name, b"'"].concat()))
}
