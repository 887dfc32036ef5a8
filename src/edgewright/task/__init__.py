"""What must be learned: labelled images in three parts, their statistics, batches and augmentation."""

from edgewright.task.augment.default import default_augment as default_augment
from edgewright.task.augment.image import Augment as Augment
from edgewright.task.augment.mixing import mix as mix
from edgewright.task.base import Split as Split
from edgewright.task.base import Task as Task
from edgewright.task.base import TaskSpec as TaskSpec
from edgewright.task.base import batches as batches
from edgewright.task.base import normalise as normalise
from edgewright.task.image_files import expand_images as expand_images
from edgewright.task.image_files import read_images as read_images
from edgewright.task.load import load_task as load_task
