//! skeleton
/// Names a connection for good: `shard:8 generation:24 slot:32`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FlowId(u64);
impl FlowId {
  pub fn new(shard: u8, generation: u32, slot: u32) -> FlowId { todo!() }
  pub fn shard(self) -> u8 { (self.0 >> 56) as u8 }
  pub fn slot(self) -> u32 { self.0 as u32 }
  pub fn generation(self) -> u32 { (self.0 >> 32) as u32 & 0xff_ffff }
}
impl std::fmt::Display for FlowId { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{:016x}", self.0) } }
/// 16 hex digits
impl std::str::FromStr for FlowId { type Err = String; fn from_str(s: &str) -> Result<Self, String> { todo!() } }

/// How many of each thing a storage has room for.
#[derive(Clone, Copy, Debug)]
pub struct Capacity { pub flows: u32, pub actives: u32, pub spans: u32, pub blocks: u32 }
impl Capacity { pub fn for_connections(n: u32) -> Capacity { todo!() } }
#[derive(Debug, thiserror::Error)]
pub enum StorageError { #[error("{0}")] Skeleton(String) }
pub struct Storage;
impl Storage {
  /// memory that dies with the process
  pub fn in_memory(capacity: Capacity) -> Result<Storage, StorageError> { todo!() }
  /// Memory that also keeps a log, as a state directory does; it outlives the shard (see Shard::into_storage), not the process
  pub fn in_memory_logged(capacity: Capacity) -> Result<Storage, StorageError> { todo!() }
  /// opens or creates DIR/shard-N.state ; locked against a second process
  pub fn in_directory(dir: &std::path::Path, shard: u8, capacity: Capacity) -> Result<Storage, StorageError> { todo!() }
  /// The time that the state has reached: what the last commit was made at (0 when fresh)
  pub fn last_time(&self) -> crate::tcp::Time { todo!() }
  /// wall clock (us since 1970) at which the state was made, as given by set_made_at
  pub fn made_at_us(&self) -> u64 { todo!() }
  pub fn set_made_at_us(&mut self, us: u64) { todo!() }
  pub fn is_fresh(&self) -> bool { todo!() }
}
